import torch

from qcrd_core.config.models import ScratchEncoder
from qcrd_core.discriminator.model import Discriminator, make_discriminator
from qcrd_core.student.tokenizer import make_tokenizer

TINY = ScratchEncoder(hidden_size=32, num_layers=1)


def _make():
    return make_discriminator(TINY, make_tokenizer(["2 + 2 = 4"], 100), seed=0).eval()


def test_discriminator_saved_and_loaded_judges_the_same(tmp_path):
    first = _make()
    first.save(tmp_path)
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long)
    assert torch.equal(first(ids, mask), Discriminator.load(tmp_path).eval()(ids, mask))


def test_discriminator_ignores_padding():
    model = _make()
    short = model(torch.tensor([[5, 6]]), torch.tensor([[1, 1]]))
    padded = model(torch.tensor([[5, 6, 0, 0]]), torch.tensor([[1, 1, 0, 0]]))
    torch.testing.assert_close(short, padded)
