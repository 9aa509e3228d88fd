"""``cost`` on networks, jobs and the paper's comparison, and what the README quotes."""

import json
import pathlib

import pytest

from sws_jax import __main__ as tools
from sws_jax import specs
from sws_jax.estimate import comparison, flops
from sws_jax.methods.learngenes import num_stored, save_learngene
from sws_jax.models.description import Description
from sws_jax.models.networks import Network, save_network
from sws_jax.pixels import Normalization

from support.formulas import DEPTHS, NANO, REMAT, S12, formula, forward, patch_flops
from support.learngenes import learngene
from support.networks import params_of

ROOT = pathlib.Path(__file__).parent.parent
# What configs/smoke.py trains, as far as it matters here.
SMOKE = specs.ViTSpec(
    depth=2, width=32, heads=4, patch_size=4, image_size=8, channels=1, num_classes=10
)


def printed(capsys, *argv):
    assert tools.main(["cost", *map(str, argv)]) == 0
    return capsys.readouterr().out


def cells(text, name):
    """Of the printed row that begins with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return line.removeprefix(name).split()


def test_networks_by_name_and_file(capsys):
    gene = ROOT / "results" / "natural" / "learngene.safetensors"
    names = ["vit_small_patch16_L12", "levit_384", gene]
    text = printed(capsys, *names)
    assert cells(text, "vit_small_patch16_L12") == [
        "22,049,896", "9.148", "27.33", "119.2",
    ]  # fmt: skip
    assert cells(text, "levit_384")[1:] == ["4.704", "-", "-"]
    assert cells(text, "aux_vit_nano_patch8_2-2-2")[0] == "166,381"
    rows = json.loads(printed(capsys, *names, "--json"))
    assert rows[0] == {
        "network": "vit_small_patch16_L12",
        "parameters": formula(S12),
        "forward_flops": forward(S12),
        "step_flops": 3 * forward(S12) - patch_flops(S12),
        "activation_bytes": flops.activation_bytes(S12),
    }


def test_a_network_is_no_learngene(tmp_path, capsys):
    net = specs.named("vit_nano_patch4_L2", image_size=8, channels=1, num_classes=10)
    about = Description(
        kind="network", net=net, normalization=Normalization((0.5,), (0.5,))
    )
    path = str(tmp_path / "net.safetensors")
    save_network(path, Network(net, params_of(net), about))
    config = f"--config={ROOT}/configs/des_deit.py:learngene={path}"
    assert tools.main(["cost", config]) == 2
    assert "holds a network (vit_nano_patch4_L2), not a l" in capsys.readouterr().err


def test_descendants_of_an_official_learngene(tmp_path, capsys):
    """They are the profile's: counted as nets of their own, and kept as the genes."""
    path = str(tmp_path / "gene.safetensors")
    gene = learngene((1, 2), about=dict(profile="official"), norm_eps=1e-5)
    save_learngene(path, gene)
    config = f"transfer.py:learngene={path},dataset=digits,depths=4,profile=official"
    text = printed(capsys, f"--config={ROOT}/configs/{config}")
    assert cells(text, "learngene")[0] == f"{num_stored(gene):,}"


def test_options_of_networks(capsys):
    argv = ["vit_nano_patch8_L2", "--image-size=32", "--json"]
    (row,) = json.loads(printed(capsys, *argv, "--remat"))
    assert row["parameters"] == formula(NANO)
    assert row["step_flops"] == flops.step_flops(NANO, REMAT)
    assert row["activation_bytes"] == flops.activation_bytes(NANO, REMAT)
    (row,) = json.loads(printed(capsys, *argv, "--dtype=bfloat16"))
    # Statistics of norms and softmax stay float32.
    assert 0.5 < row["activation_bytes"] / flops.activation_bytes(NANO) < 0.75


def test_layer_epochs_and_flops_of_the_papers_plans():
    """S: 105 blocks x 100 epochs against 16 x 150 and 105 x 10."""
    *_, layers, training = comparison.paper("S")
    assert layers.values == (105 * 100, 16 * 150 + 105 * 10)

    def step(depth):
        net = S12.replace(depth=depth)
        return 1_281_167 * (3 * forward(net) - patch_flops(net))

    nets = sum(map(step, DEPTHS))
    expected = 100 * nets, 150 * step(16) + 10 * nets
    assert training.values == pytest.approx(expected, rel=1e-12)


def test_the_readme_quotes_what_the_command_prints(capsys):
    shown = (ROOT / "README.md").read_text()
    block = shown.split("<!-- python -m sws_jax cost --paper=S -->\n```text\n")[1]
    assert block.split("```")[0] == printed(capsys, "--paper=S")


def test_the_readme_quotes_the_ratios_of_b():
    *others, _ = comparison.paper("B")
    stored, runs, epochs, bare, tuned = (f"{claim.ratio:.2f}" for claim in others)
    words = " ".join((ROOT / "README.md").read_text().split())
    assert f"With Aux-B (`--paper=B`, 100 epochs) they are {stored} (storage)" in words
    assert f"{bare} (layer-epochs: the other reading of 6.6)" in words
    assert f"and {tuned} with tuning" in words


def test_the_plan_of_a_job(capsys):
    """configs/smoke.py: 2 blocks for 4 epochs, an Aux-Net of 4 for 2, two depths."""
    argv = [f"--config={ROOT / 'configs' / 'smoke.py'}", "--config.model.stages=(1,3)"]
    printout = json.loads(printed(capsys, *argv, "--json"))
    rows = {row["run"]: row for row in printout["runs"]}
    assert rows["ancestor"]["layer_epochs"] == rows["aux"]["layer_epochs"] == 8
    ways = printout["ways"]
    gene, long = ways["learngene"], ways["scratch, long"]
    assert gene["layer_epochs"] == 8 + 8 + (2 + 4) * 2
    assert (gene["epochs"], gene["pretrainings"]) == (4 + 2 + 2 * 2, 2)
    assert gene["stored"] == rows["aux"]["parameters"]
    assert (long["layer_epochs"], long["pretrainings"]) == ((2 + 4) * 10, 2)
    assert long["stored"] == sum(rows[f"des-L0{d}"]["parameters"] for d in (2, 4))
    for name, row in rows.items():
        assert row["flops"] == row["epochs"] * 1257 * row["step_flops"], name
    # The ancestor's forward is part of the Aux-Net's step, without rematerialisation.
    teaching = flops.forward_flops(SMOKE)
    assert rows["aux"]["step_flops"] - teaching == rows["des-L04"]["step_flops"]
    assert rows["des-L02"]["step_flops"] == flops.step_flops(SMOKE, REMAT)
    text = printed(capsys, *argv, "--config.compare.long_epochs=20", "--images=100")
    assert cells(text, "long / learngene")[3] == f"{120 / 28:.2f}"
    assert "digits: 100 training images, 8 x 8 pixels, 10 classes" in text


def test_the_plans_of_two_methods(capsys):
    """Each has the ancestor and its own Aux-Net and descendants, and its own ratio."""
    argv = [
        f"--config={ROOT / 'configs' / 'smoke.py'}",
        "--config.model.stages=(1,3)",
        "--config.methods=('sws','tleg')",
    ]
    text = printed(capsys, *argv)
    tuned = (2 + 4) * 2
    layers = {"sws": 8 + 4 * 2 + tuned, "tleg": 8 + 12 * 2 + tuned}
    for method, spent in layers.items():
        assert cells(text, method)[3] == str(spent)
        assert cells(text, f"long / {method}")[3] == f"{60 / spent:.2f}"


def test_what_a_job_does_not_say_is_not_counted_and_said(capsys):
    config = ROOT / "configs" / "aux_deit.py"
    arguments = (
        "variant=32px,dataset=tfds:none,teacher=none.safetensors,compare=untuned"
    )
    argv = [f"--config={config}:{arguments},depths=3-4", "--json", "--classes=7"]
    untaught = json.loads(printed(capsys, *argv))
    notes = "\n".join(untaught["notes"])
    assert "tfds:none is not read; assumed: 1,281,167 training images, 32 x 32" in notes
    assert "7 classes, 3 colour channels" in notes
    assert "training of the teacher: not counted" in notes
    assert "forward of the teacher of aux: not counted, as there is no file" in notes
    taught = json.loads(printed(capsys, *argv, "--teacher=vit_tiny_patch16_L12"))
    assert "forward of the teacher" not in "\n".join(taught["notes"])
    steps = [data["runs"][0]["step_flops"] for data in (untaught, taught)]
    teaching = forward(specs.named("vit_tiny_patch16_L12", num_classes=7))
    # Images are enlarged for it, by matrix products too.
    assert teaching < steps[1] - steps[0] < 1.01 * teaching
    assert "stored" in untaught["ways"]["learngene"]


def test_a_learngene_that_is_not_there(capsys):
    config = ROOT / "configs" / "transfer.py"
    missing = "learngene=none.safetensors,dataset=digits,depths=2-3,seeds=2"
    text = printed(capsys, f"--config={config}:{missing}")
    assert cells(text, "learngene")[:2] == ["-", "0"]
    assert "stored parameters of the learngene: not known" in text
    assert "one seed counted: 2 of 4 runs" in text
    present = missing.replace("none.safe", f"{ROOT}/results/digits/learngene.safe")
    text = printed(capsys, f"--config={config}:{present}")
    assert cells(text, "learngene")[:2] == ["252,042", "0"]
    assert "teacher and Aux-Net of the learngene: not counted" in text


@pytest.mark.parametrize(
    "argv, words",
    [
        ("", "was given none of them"),
        ("vit_nano_patch8_L2 --paper=S", "was given networks and paper"),
        ("resnet", "names look like vit_small_patch16_L12 or aux_vit_small_patch16"),
        ("resnet", "levit_384, regnety_002"),
        ("vit_huge_patch16_L12", "no network is named 'vit_huge_patch16_L12'"),
        ("none.safetensors", "there is no weights file none.safetensors"),
        ("vit_nano_patch8_L2 --image-size=30", "30 x 30 pixels does not divide"),
        ("vit_nano_patch8_L2 --classes=0", "--classes must be at least 1, and is 0"),
        ("vit_nano_patch8_L2 --dtype=int8", "dtype 'int8' is not one of"),
        ("vit_nano_patch8_L2 --images=5", "--images does not go with names of"),
        ("vit_nano_patch8_L2 --teacher=resnet", "no network is named 'resnet'"),
        ("vit_nano_patch8_L2 --imagesize=5", "cost has no option --imagesize=5"),
        ("--paper=L", "the paper compares sizes S and B, and not 'L'"),
        ("--paper=S --classes=5", "--classes does not go with --paper"),
        ("--config=none.py", "there is no config file 'none.py'"),
        ("--config=SMOKE --images=-3", "--images must be at least 1, and is -3"),
        ("--config=SMOKE --remat", "--remat does not go with --config"),
        ("--config=SMOKE --config.model.widht=3", "no field config.model.widht"),
        ("--config=SMOKE --config.log_steps=0", "log_steps must be at least 1"),
        ("--config=SCRATCH --teacher=levit_384", "no run of this job is distilled"),
        ("--config=SCRATCH:dataset=x.npz", "say it as --config.data.image_size"),
    ],
)
def test_mistakes_are_answered_in_one_line(argv, words, capsys):
    for name, file in (("SMOKE", "smoke.py"), ("SCRATCH", "scratch_deit.py")):
        argv = argv.replace(name, str(ROOT / "configs" / file))
    assert tools.main(["cost", *argv.split()]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("sws_jax: ") and error.count("\n") == 1
    assert words in error
