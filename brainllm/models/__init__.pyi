# For type checkers and editors, which cannot see through the lazy face of this wing. Written by hand: one line a room.
from brainllm.decoder import BrainLLM as BrainLLM
from .adaptors import *
from .encoder import *
from .judge import *
from .llm import *
from .projection import *
from .ridge import *
from .state import *
from .tokenizer import *
