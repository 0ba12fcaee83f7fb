# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .bids import *
from .check import *
from .fetch import *
from .films import *
from .had import *
from .haxby import *
from .hcp import *
from .protocol import *
from .sherlock import *
