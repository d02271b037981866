"""What pyproject.toml cannot say: the migrations live in ``alembic/``, installed inside the package."""

from setuptools import find_packages, setup

MIGRATIONS = "barkd_py.wallet.store.migrations"

setup(
    packages=[*find_packages(include=["barkd_py*"]), MIGRATIONS, f"{MIGRATIONS}.versions"],
    package_dir={MIGRATIONS: "alembic", f"{MIGRATIONS}.versions": "alembic/versions"},
)
