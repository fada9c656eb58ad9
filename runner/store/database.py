"""A handle of one of LMDB's databases."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import lmdb

Database: TypeAlias = "lmdb._Database"  # noqa: SLF001 - the type has no other name
