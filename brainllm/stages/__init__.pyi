# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .card import *
from .experiment import *
from .frozen import *
from .pretrained import *
from .stage1 import *
from .stage2 import *
from .study import *
from .teacher import *
from .text import *
from .weigh import *
