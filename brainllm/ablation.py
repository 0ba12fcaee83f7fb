"The old address of `brainllm.evaluate.ablation`, for `python -m brainllm.ablation`. Written by hand: no notebook exports it."

import runpy

if __name__ == '__main__': runpy.run_module('brainllm.evaluate.ablation', run_name='__main__', alter_sys=True)
