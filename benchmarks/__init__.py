"""Measurements: of the engine against its peers (`engine`), and behind the choices that the code makes (`choices`)."""
