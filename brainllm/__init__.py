"From a brain to a sentence. The names that people come for, each opened on first use. Written by hand."

__version__ = "0.1.0"

import os

# Threads that wait sleep instead of spinning, so that another busy process slows this one little. The libraries read
# this when they are loaded, so it stands before any of them.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('KMP_BLOCKTIME', '0')

from brainllm.core import face  # noqa: E402

__getattr__, __dir__, __all__ = face(
    __name__,
    models='FMRITokenizer BrainEncoder MaskedBrainModel BrainLLM add_adaptors AdaptorConfig',
    losses='clip_loss l2l1_loss nc_loss es_loss MemoryBank',
    datasets='HAD Urgen HaxbySlice',
    evaluate='score score_text identification permutation_p reproduce',
    presets='get_preset PRESETS',
    **dict.fromkeys('captions code core data decoder from_file optim paper parts pretrain ranks schemes'.split(), ''),
    **dict.fromkeys('simulate sources stages store table video weights haxby sherlock doctor cli'.split(), ''),
)
