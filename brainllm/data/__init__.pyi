# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .blocks import *
from .clean import *
from .files import *
from .frames import *
from .grid import *
from .trials import *
