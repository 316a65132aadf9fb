"""Noise scores of held-out windows from logits: how the model starts to name a title (paper, section 3.3), how likely one is."""


def first_token_log_probs(logits, answer_lengths, candidates):
    """Log-probability (B, n) float32 with which the model starts to name each item of a held-out window (paper, section 3.3).

    logits (B, K + 1, V): they end with the answers. answer_lengths (B,) int64: the tokens of each answer. candidates (B, n)
    int64: the first token of each title, negative where a window has no item; the score there means nothing.
    """
    import torch

    before_answer = logits.shape[1] - answer_lengths - 1  # (B,) the column that predicts an answer's first token
    rows = torch.arange(len(logits), device=logits.device)
    log_probs = logits[rows, before_answer].float().log_softmax(-1)  # (B, V)
    return log_probs.gather(1, candidates.clamp(min=0))


def title_log_likelihoods(logits, tokens, title_starts, title_ends):
    """log P(title | what stands before it) (B, n) float32 of each title of a window.

    logits (B, L, V); tokens (B, L) int64, of which all but the padding are labels; title_starts, title_ends (B, n) int64:
    negative, counted from the end of the text.
    """
    import torch

    log_probs = token_log_probs(logits[:, :-1], tokens[:, 1:].clamp(min=0))  # (B, L - 1): nothing predicts the first token
    # Column j holds log P of all tokens before token j, so a title's log P is the difference of two columns. Two zeros in
    # front: nothing stands before the first token, and the first token itself is not predicted.
    log_prob_before = torch.nn.functional.pad(log_probs.cumsum(1), (2, 0))  # (B, L + 1)
    n_tokens = tokens.shape[1]
    return log_prob_before.gather(1, title_ends + n_tokens) - log_prob_before.gather(1, title_starts + n_tokens)


def token_log_probs(logits, tokens, rows_at_once: int = 8):
    """log P (B, T) or (K,) float32 of tokens of that shape under logits (B, T, V) or (K, V).

    Some rows of logits at a time become float32: a copy of all of them is large.
    """
    import torch

    normaliser = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(rows_at_once)])  # as tokens
    return logits.gather(-1, tokens[..., None])[..., 0].float() - normaliser
