# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .answers import *
from .checkpoints import *
from .clips import *
from .published import *
from .small import *
from .teachers import *
