"The old address of `brainllm.evaluate.statistics`, for `from brainllm.statistics import score`. Written by hand."

from brainllm.evaluate.identify import by_subject, distractors, identification, identification_items, pair_ranks
from brainllm.evaluate.identify import pair_wins, pairings, win_probability
from brainllm.evaluate.intervals import Corpus, Mean, TwoWay, holm, interval, left_out, max_t, observed, p_value
from brainllm.evaluate.intervals import permutation_null, permutation_p, resample
from brainllm.evaluate.statistics import WORDS, Scores, group_limit, identify_subjects, measures, normalised
from brainllm.evaluate.statistics import plot_known, score, score_rows, score_subjects, word_study, word_truth

# fmt: off
__all__ = [
    'by_subject', 'distractors', 'identification', 'identification_items', 'pair_ranks', 'pair_wins',
    'pairings', 'win_probability', 'Corpus', 'Mean', 'TwoWay', 'holm', 'interval', 'left_out', 'max_t',
    'observed', 'p_value', 'permutation_null', 'permutation_p', 'resample', 'WORDS', 'Scores', 'group_limit',
    'identify_subjects', 'measures', 'normalised', 'plot_known', 'score', 'score_rows', 'score_subjects',
    'word_study', 'word_truth',
]
