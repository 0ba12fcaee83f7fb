# For type checkers and editors, which cannot see through the lazy face of the package. Written by hand.
from . import captions, cli, code, core, data, datasets, decoder, doctor, evaluate, from_file, haxby, losses, models, optim, paper, parts
from . import presets, pretrain, ranks, schemes, sherlock, simulate, sources, stages, store, table, video, weights
from .datasets import HAD as HAD, HaxbySlice as HaxbySlice, Urgen as Urgen
from .decoder import BrainLLM as BrainLLM
from .evaluate.identify import identification as identification
from .evaluate.intervals import permutation_p as permutation_p
from .evaluate.pipeline import reproduce as reproduce
from .evaluate.scores import score_text as score_text
from .evaluate.statistics import score as score
from .losses import MemoryBank as MemoryBank, clip_loss as clip_loss, es_loss as es_loss
from .losses import l2l1_loss as l2l1_loss, nc_loss as nc_loss
from .models.adaptors import AdaptorConfig as AdaptorConfig, add_adaptors as add_adaptors
from .models.encoder import BrainEncoder as BrainEncoder, MaskedBrainModel as MaskedBrainModel
from .models.tokenizer import FMRITokenizer as FMRITokenizer
from .presets import PRESETS as PRESETS, get_preset as get_preset

__version__: str
