"""PyTorch's DenseNet-121 in Keras: same maps, block by block; names of other projects; files that are refused."""

import json

import keras
import numpy as np
import pytest

from chexpert_hier.errors import InputError
from chexpert_hier.network import backbones, torch_weights, weights

torch = pytest.importorskip("torch", reason="torch is not installed")
SIZE = 64
CUTS = {"pool0": "pool1", "denseblock1": "conv2_block6_concat", "transition1": "pool2_pool",
        "denseblock2": "conv3_block12_concat", "transition2": "pool3_pool", "denseblock3": "conv4_block24_concat",
        "transition3": "pool4_pool", "denseblock4": "conv5_block16_concat", "norm5": "bn"}


class DenseLayer(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1, self.conv1 = torch.nn.BatchNorm2d(channels), torch.nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2, self.conv2 = torch.nn.BatchNorm2d(128), torch.nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x):
        new = self.conv2(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


class Transition(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = torch.nn.BatchNorm2d(channels), torch.nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet121(torch.nn.Module):
    """Huang et al. 2017, table 1, with torchvision's names (torchvision itself is not needed)."""

    def __init__(self, inputs=3, outputs=18):
        super().__init__()
        nn, channels = torch.nn, 64
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(inputs, 64, 7, 2, 3, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(64))
        self.features.add_module("relu0", nn.ReLU())
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
        for block, layers in enumerate((6, 12, 24, 16), start=1):
            dense = nn.Sequential()
            for layer in range(1, layers + 1):
                dense.add_module(f"denselayer{layer}", DenseLayer(channels))
                channels += 32
            self.features.add_module(f"denseblock{block}", dense)
            if block < 4:
                self.features.add_module(f"transition{block}", Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, outputs)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = DenseNet121().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 1.5)
            module.running_var[0] = 1e-6  # where the different epsilons would show
    return net


@pytest.fixture(scope="module")
def backbone():
    return backbones.BACKBONES["densenet121"].build(SIZE)


@pytest.fixture
def cleared(backbone):
    backbone.set_weights([np.full(w.shape, 0.5, "float32") for w in backbone.weights])
    return backbone


def assert_same(network, backbone, films):
    """films: (n, size, size, 3); compared where each block ends."""
    maps = keras.Model(backbone.input, [backbone.get_layer(layer).output for layer in CUTS.values()])(films)
    x = torch.from_numpy(films.transpose(0, 3, 1, 2).copy())
    ours = dict(zip(CUTS, maps))
    if network.features.conv0.in_channels == 1:
        x = x[:, :1]
    with torch.no_grad():
        for name, module in network.features.named_children():
            x = module(x)
            if name in CUTS:
                theirs = x.numpy().transpose(0, 2, 3, 1)
                scale = max(1.0, float(np.abs(theirs).max()))
                np.testing.assert_allclose(ours[name] / scale, theirs / scale, atol=1e-4, err_msg=name)


def films():
    return np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype("float32")


def write_safetensors(path, state, dtype="F32"):
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, value in state.items():
        kind = "I64" if value.dtype == torch.int64 else dtype
        array = value.numpy() if kind == "I64" else value.numpy().astype(kinds[dtype])
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(numbers),
                                                                                  len(numbers) + array.nbytes]}
        numbers += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def test_every_layer_with_weights_has_its_partner(backbone):
    layers = [layer for layer, _, _ in torch_weights._pairs()]
    assert sorted(layers) == sorted(layer.name for layer in weights.layers_with_weights(backbone))


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_maps_are_pytorchs_block_by_block(network, cleared, tmp_path, kind):
    path = tmp_path / f"densenet121.{kind}"
    if kind == "pt":
        torch.save(network.state_dict(), path)
    else:
        write_safetensors(path, network.state_dict())
    weights.load_weights(cleared, path, "densenet121")
    assert_same(network, cleared, films())


def test_names_and_wrappings_of_other_projects(network, cleared, tmp_path):
    state = {}
    for name, value in network.state_dict().items():  # torchvision 0.2's spelling in a DataParallel checkpoint
        for part in ("norm", "conv"):
            if "denselayer" in name:
                name = name.replace(f".{part}1.", f".{part}.1.").replace(f".{part}2.", f".{part}.2.")
        state[f"module.densenet121.{name}"] = value
    torch.save({"epoch": 3, "state_dict": state, "best": 0.8}, tmp_path / "model.pth")
    torch_weights.load_densenet121(cleared, tmp_path / "model.pth")
    assert_same(network, cleared, films())


def test_one_channel_becomes_three_equal_ones(cleared, tmp_path):
    torch.manual_seed(1)
    network = DenseNet121(inputs=1).eval()
    write_safetensors(tmp_path / "grey.safetensors", network.state_dict())
    torch_weights.load_densenet121(cleared, tmp_path / "grey.safetensors")
    assert_same(network, cleared, np.repeat(films()[..., :1], 3, axis=-1))


def test_half_precision_and_brain_floats_are_read(tmp_path):
    values = torch.tensor([[1.5, -2.0, 0.25]])
    for dtype in ("F16", "F64"):
        write_safetensors(tmp_path / "x.safetensors", {"a": values}, dtype)
        np.testing.assert_array_equal(torch_weights.read_state(tmp_path / "x.safetensors")["a"], values)
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    bits = (values.numpy().ravel().view("<u4") >> 16).astype("<u2").tobytes()
    (tmp_path / "b.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    np.testing.assert_array_equal(torch_weights.read_state(tmp_path / "b.safetensors")["a"], values[0])


class Harmful:
    def __reduce__(self):
        return (open, ("made_by_unpickling", "w"))


def test_code_in_a_file_is_not_run(cleared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, "harmful.pt")
    with pytest.raises(InputError, match="could run code"):
        torch_weights.load_densenet121(cleared, "harmful.pt")
    assert not (tmp_path / "made_by_unpickling").exists()


def test_files_of_something_else_are_told_and_change_nothing(network, cleared, tmp_path):
    before = cleared.get_weights()
    state = network.state_dict()
    del state["features.denseblock4.denselayer16.conv2.weight"]
    torch.save(state, tmp_path / "partial.pt")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    state = network.state_dict()
    state["features.norm5.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "shape.pt")
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 no more")
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "short.safetensors").write_bytes(b"\x02")
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    (tmp_path / "outside.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    for name, told in {"partial.pt": "denselayer16.conv2.weight is not in it", "other.pt": "expected one DenseNet-121",
                       "list.pt": "expected a state dict", "shape.pt": "norm5", "damaged.pth": "damaged",
                       "damaged.safetensors": "cut short", "short.safetensors": "cut short",
                       "outside.safetensors": "outside the file"}.items():
        with pytest.raises(InputError, match=told):
            weights.load_weights(cleared, tmp_path / name, "densenet121")
    for old, new in zip(before, cleared.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_other_architectures_take_no_pytorch_weights(tmp_path):
    with pytest.raises(InputError, match="densenet121 only"):
        weights.load_weights(None, tmp_path / "x.pt", "densenet169")
