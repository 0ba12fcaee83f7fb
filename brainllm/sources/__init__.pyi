# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .betas import *
from .grayordinates import *
from .mosaic import *
from .register import *
from .study import *
