"""Data sets, all read into one kind of record; none is ever downloaded.

`record` says what a record is, `formats` which files can be read; a file for each family of data sets reads it.
"""

from .formats import FORMATS, Format, digest, find_file, read_records
from .record import DataError, Probe, Record

__all__ = ["FORMATS", "DataError", "Format", "Probe", "Record", "digest", "find_file", "read_records"]
