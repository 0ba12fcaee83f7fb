"`python -m brainllm.datasets`, as it was before this wing had rooms. Written by hand: no notebook exports it."

import runpy

runpy.run_module('brainllm.datasets.check', run_name='__main__', alter_sys=True)
