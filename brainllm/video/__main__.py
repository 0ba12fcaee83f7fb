"`python -m brainllm.video`, as it was before this wing had rooms. Written by hand: no notebook exports it."

import runpy

runpy.run_module('brainllm.video.answers', run_name='__main__', alter_sys=True)
