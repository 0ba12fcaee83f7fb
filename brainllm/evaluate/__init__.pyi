# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from .ablation import *
from .baselines import *
from .bench import *
from .comparison import *
from .controls import *
from .costs import *
from .guided import *
from .human import *
from .identify import *
from .intervals import *
from .methods import *
from .pipeline import *
from .result import *
from .scores import *
from .statistics import *
from .words import *
