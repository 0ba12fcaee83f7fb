"The old address of `brainllm.evaluate.statistics`. Written by hand: no notebook exports it."

from brainllm.evaluate.identify import *
from brainllm.evaluate.intervals import *
from brainllm.evaluate.statistics import *
