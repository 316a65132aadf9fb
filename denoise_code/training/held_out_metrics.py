"""How well the model in training tells planted items of held-out windows."""

from denoise_code.evidence.detection import planted_detection
from denoise_code.language_model.prompt import IGNORED


def held_out_metrics(prediction) -> dict[str, float]:
    """Detection by the first-token scores of held-out windows, and by their likelihoods where those were computed.

    prediction: of the trainer, its labels being the tokens and then FOR_METRICS.
    """
    _, _, _, planted, popular, *_ = prediction.label_ids
    several = isinstance(prediction.predictions, tuple)
    first_token, *likelihood = prediction.predictions if several else (prediction.predictions,)
    found = detection_metrics(first_token, planted, popular)
    for values in likelihood:
        more = detection_metrics(-values, planted, popular)
        found |= {f"likelihood_{name}": value for name, value in more.items()}
    return found


def detection_metrics(scores, planted, popular) -> dict[str, float]:
    """`planted_detection` of scores (N, n) of held-out windows; planted (N, n) is IGNORED where a window has no item."""
    real = planted != IGNORED
    truths, scores = ([row[inside] for row, inside in zip(values, real)] for values in (planted, scores))
    return planted_detection(truths, scores, popular)
