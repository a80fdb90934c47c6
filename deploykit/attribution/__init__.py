"""Which layer is guilty: the error of a file, attributed to the modules of the network that it was made from."""

from deploykit.attribution.attribute import attribute
from deploykit.attribution.records import Attribution, ModuleError, Part, Verdict

__all__ = ["Attribution", "ModuleError", "Part", "Verdict", "attribute"]
