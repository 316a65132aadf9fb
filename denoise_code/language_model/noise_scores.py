"""Noise scores from a model's logits."""


def first_token_scores(logits, labels):
    """Log-probability (B, n) with which the model starts to name each item of a held-out window.

    logits (B, K + 1, V) end with the answers; the one before an answer's first token scores the candidates (B, n).
    """
    import torch

    _, answer_length, candidates, *_ = labels
    before_answer = logits.shape[1] - answer_length - 1
    rows = torch.arange(len(logits), device=logits.device)
    log_probs = logits[rows, before_answer].float().log_softmax(-1)  # (B, V)
    return log_probs.gather(1, candidates.clamp(min=0))


def title_log_likelihoods(logits, labels):
    """log P(title | what stands before it) (B, n) of each item of a held-out window; all tokens must have labels.

    logits (B, L, V), labels[0] (B, L).
    """
    import torch

    tokens, *_, starts, ends = labels
    log_probs = token_log_probs(logits[:, :-1], tokens[:, 1:].clamp(min=0))  # (B, L - 1): nothing predicts the first token
    before = torch.nn.functional.pad(log_probs.cumsum(1), (2, 0))  # (B, L + 1): log P of what stands before each token
    return before.gather(1, ends + tokens.shape[1]) - before.gather(1, starts + tokens.shape[1])


def token_log_probs(logits, tokens):
    """log P (B, T) of tokens (B, T) under logits (B, T, V); a few rows at a time, as float32 copies are large."""
    import torch

    normaliser = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(8)])
    return logits.gather(-1, tokens[..., None])[..., 0].float() - normaliser
