# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .brains import *
from .design import *
from .films import *
from .made import *
from .observer import *
from .write import *
