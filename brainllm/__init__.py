"From a brain to a sentence. The names that people come for, each opened on first use. Written by hand."

__version__ = "0.1.0"

from brainllm.core import face

__getattr__, __dir__, __all__ = face(
    __name__,
    models='FMRITokenizer BrainEncoder MaskedBrainModel BrainLLM add_adaptors AdaptorConfig',
    losses='clip_loss l2l1_loss nc_loss es_loss MemoryBank',
    datasets='HAD Urgen HaxbySlice',
    evaluate='score score_text identification permutation_p reproduce',
    presets='get_preset PRESETS',
    **dict.fromkeys('captions code core data decoder optim paper pretrain'.split(), ''),
    **dict.fromkeys('simulate sources stages store table video weights haxby sherlock cli'.split(), ''),
)
