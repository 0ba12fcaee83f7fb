# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .decode import *
from .pictures import *
from .recall import *
from .sayings import *
from .scores import *
from .stretches import *
from .together import *
