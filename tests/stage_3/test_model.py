"""SASRec_code/recommenders: attention, recurrence, losses, dropout, negatives against loops."""

import numpy as np
import pytest
import torch
from recommenders.base import sample_negatives
from recommenders.bert4rec import BERT4Rec, Block
from recommenders.gru4rec import GRU4Rec
from recommenders.sasrec import SASRec
from torch import nn


def small_model(**options):
    torch.manual_seed(0)
    return SASRec(**({"n_items": 30, "maxlen": 10, "hidden_units": 16, "num_heads": 2} | options))


def test_attention_against_a_loop():
    model = small_model().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        model.items.weight[0] = 0
        history = torch.tensor([[0, 0, 0, 5, 9, 2, 2, 30, 1, 4]])
        x = model.items(history[0]) * 4 + model.positions.weight
        x[:3] = 0
        for block in model.blocks:
            query = block.attention_norm(x)
            q, kv, mixed = block.attention.query(query), block.attention.key_value(x), torch.zeros(10, 16)
            for row in range(10):
                seen = [column for column in range(row + 1) if history[0, column] or column == row]
                for head in (slice(0, 8), slice(8, 16)):
                    weights = torch.stack([q[row, head] @ kv[column, :16][head] for column in seen]) / 8**0.5
                    values = torch.stack([kv[column, 16:][head] for column in seen])
                    mixed[row, head] = weights.softmax(0) @ values
            x = block.forward_norm(query + block.attention.output(mixed))
            x = x + block.outer(torch.relu(block.inner(x)))
            x[:3] = 0
        assert torch.allclose(model(history)[0], model.last_norm(x), atol=1e-5)


def test_left_padding_changes_nothing_and_padding_is_zero():
    model = small_model().eval()
    history = torch.tensor([[3, 7, 1]])
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), history], 1)
    assert torch.allclose(model(history)[0, -3:], model(padded)[0, -3:], atol=1e-6)
    assert model.items.weight[0].abs().sum() == 0 and model.scores(history)[0, 0] == -torch.inf
    model.train()
    model.bce_loss(torch.tensor([[0, 3, 7, 1]]), torch.tensor([[9, 9, 9]])).backward()
    assert model.items.weight.grad[0].abs().sum() == 0
    fresh = SASRec(2000)
    assert fresh.items.weight[1:].std().item() == pytest.approx(0.02, rel=0.05) and fresh.blocks[0].inner.bias.abs().sum() == 0


def test_losses_against_a_loop():
    model = small_model(dropout_rate=0.0)
    windows, negatives = torch.tensor([[0, 0, 4, 8, 2], [1, 2, 3, 4, 5]]), torch.randint(6, 30, (2, 4))
    hidden = model(windows[:, :-1])
    positive, negative, full = [], [], []
    for row in range(2):
        for place in range(4):
            if windows[row, place]:
                dot = model.items.weight @ hidden[row, place]
                positive.append(-torch.log(torch.sigmoid(dot[windows[row, place + 1]])))
                negative.append(-torch.log(1 - torch.sigmoid(dot[negatives[row, place]])))
                full.append(-dot[1:].log_softmax(0)[windows[row, place + 1] - 1])
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    assert model.bce_loss(windows, negatives).item() == pytest.approx((mean(positive) + mean(negative)).item(), rel=1e-5)
    assert model.ce_loss(windows).item() == pytest.approx(mean(full).item(), rel=1e-5)


def test_dropout_keeps_the_share_and_the_mean():
    from denoise_code.common.dropout import Dropout

    torch.manual_seed(0)
    for rate in (0.1, 0.5, 0.9):
        out = Dropout(rate)(torch.ones(1001, 333))
        assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
        assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(Dropout(0.5).eval()(torch.ones(5)), torch.ones(5))


def test_negatives_are_uniform_and_never_of_the_window():
    from scipy.stats import chisquare

    windows = torch.tensor([[0, 1, 2, 3]]).repeat(20_000, 1)
    negatives = sample_negatives(windows, 12, torch.Generator().manual_seed(0))
    counts = np.bincount(negatives.flatten(), minlength=13)
    assert counts[:4].sum() == 0 and chisquare(counts[4:]).pvalue > 0.001


def test_gru4rec_against_a_loop():
    torch.manual_seed(0)
    model, hidden, histories = GRU4Rec(30, hidden_units=8).eval(), [], [[4, 8, 2], [1, 2, 3, 4, 5], [9]]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        weights = model.layers
        for history in histories:
            state = torch.zeros(8)
            for item in history:
                inputs = (weights.weight_ih_l0 @ model.items.weight[item] + weights.bias_ih_l0).chunk(3)
                states = (weights.weight_hh_l0 @ state + weights.bias_hh_l0).chunk(3)
                reset, update = torch.sigmoid(inputs[0] + states[0]), torch.sigmoid(inputs[1] + states[1])
                state = (1 - update) * torch.tanh(inputs[2] + reset * states[2]) + update * state
            hidden.append(model.output(state))
        padded = torch.tensor([[0] * (7 - len(history)) + history for history in histories])
        assert torch.allclose(model(padded)[:, -1], torch.stack(hidden), atol=1e-5)
        assert torch.allclose(model.scores(padded)[:, 1:], torch.stack(hidden) @ model.items.weight[1:].T, atol=1e-5)


def test_bert4rec_loss_against_a_loop(monkeypatch):
    """Of three windows one has masked items, one none (its last is taken), one the last alone."""
    torch.manual_seed(0)
    model = BERT4Rec(30, maxlen=4, hidden_units=8, dropout_rate=0.0)
    windows = torch.tensor([[0, 7, 4, 8, 2], [1, 2, 3, 4, 5], [0, 0, 6, 1, 9]])
    places, last_only = torch.full((3, 5), 0.9), torch.tensor([0.9, 0.9, 0.1])
    places[0, :3] = places[2, 2] = 0.1  # a padded place is never asked for
    draws = iter([places, last_only])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(draws))
    masked = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]).bool()
    losses = []
    for row in range(3):
        window, places = windows[row][windows[row] != 0], masked[row][windows[row] != 0]
        hidden = model.predict(window[None], places[None])[0]  # without its padding
        for place in torch.nonzero(places)[:, 0]:
            logits = model.items.weight[1:] @ hidden[place] + model.bias[1:]
            losses.append(-logits.log_softmax(0)[window[place] - 1])
    assert model.ce_loss(windows).item() == pytest.approx((sum(losses) / len(losses)).item(), rel=1e-5)


def test_bert4rec_block_is_the_library_s_encoder_layer():
    """Without dropout: the library draws it more slowly, and once more after the activation, which BERT does not."""
    torch.manual_seed(0)
    block = Block(8, num_heads=2, dropout_rate=0.0)
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.0, activation="gelu", batch_first=True)
    attention = layer.self_attn
    pairs = [(block.inner, layer.linear1), (block.outer, layer.linear2), (block.attention.output, attention.out_proj)]
    for ours, theirs in [*pairs, (block.attention_norm, layer.norm1), (block.forward_norm, layer.norm2)]:
        theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for kind, ours in (("weight", "in_proj_weight"), ("bias", "in_proj_bias")):
            parts = [getattr(part, kind) for part in (block.attention.query, block.attention.key_value)]
            getattr(attention, ours).copy_(torch.cat(parts))
        x, allowed = torch.randn(2, 4, 8), torch.tensor([[True] * 4, [False, False, True, True]])
        assert torch.allclose(block(x, allowed[:, None, None]), layer(x, src_key_padding_mask=~allowed), atol=1e-6)


def test_bert4rec_sees_both_sides_and_not_what_is_masked():
    torch.manual_seed(0)
    model, window = BERT4Rec(30).eval(), torch.tensor([[3, 7, 1, 9]])
    masked = torch.tensor([[False, True, False, False]])
    before = model.predict(window, masked)[0, 1]
    assert not torch.allclose(model.predict(torch.tensor([[3, 7, 1, 8]]), masked)[0, 1], before, atol=1e-4)
    assert torch.equal(model.predict(torch.tensor([[3, 8, 1, 9]]), masked)[0, 1], before)


@pytest.mark.parametrize("kind", [GRU4Rec, BERT4Rec])
def test_left_padding_changes_nothing(kind):
    torch.manual_seed(0)
    model, history = kind(30).eval(), torch.tensor([[3, 7, 1]])
    padded = torch.cat([torch.zeros(1, 6, dtype=torch.long), history], 1)
    assert torch.allclose(model.scores(history)[:, 1:], model.scores(padded)[:, 1:], atol=1e-6)
    assert model.scores(history)[0, 0] == -torch.inf
    model.train()
    model.ce_loss(torch.tensor([[0, 0, 3, 7, 1]])).backward()
    assert model.items.weight[0].abs().sum() == 0 and model.items.weight.grad[0].abs().sum() == 0
