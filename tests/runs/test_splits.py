"""Imported sets from the first command to the report: what is source, target, held out and pairs."""

import json
import shlex
import shutil
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import foreign
import formats
import pytest
import torch
import torchvision
from command_line import call, refused
from tiny_runs import epochs_without_seconds
from worlds import patterned

from socketlab import features
from socketlab.errors import LabError
from socketlab.figures import maps
from socketlab.files import from_json
from socketlab.images.encodings import FOCAL, focal_of
from socketlab.images.importers import survey, write_pack
from socketlab.images.packs import open_pack, write_manifest
from socketlab.images.paired_images import PairedImages, crop_side
from socketlab.method.recipe import Recipe
from socketlab.networks.backbones import ResNetTrunk, backbone_network, weights_normalisation
from socketlab.networks.checkpoints import Source, load_source, save_source
from socketlab.networks.networks import networks_of, small_network
from socketlab.runs import run_folder, splits
from socketlab.runs import settings as run_settings
from socketlab.runs import train_source as source
from socketlab.runs.settings import Settings, gather, resolved
from socketlab.runs.train_source import SourceRecipe, Trained

CHANGES = ("align_epochs=1", "epochs=1", "batch_size=8", "trunk_lr=0.001", "bottleneck_lr=0.001")
SHORT = [word for change in CHANGES for word in ("--set", change)]
TRAINING = ("--epochs", "1", "--batch-size", "8", "--device", "cpu")
OPTIONS = {"folders": {"task": formats.TASK}}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Kind → folder of a clean set in its own format, written when it is asked for."""
    root = tmp_path_factory.mktemp("raw")
    return cache(lambda kind: formats.WRITERS[kind](root / kind))


@pytest.fixture(scope="module")
def imported(raw, tmp_path_factory):
    """Kind → pack of it, 32 pixels wide."""
    root = tmp_path_factory.mktemp("packs")

    def make(kind):
        found = survey(kind, raw(kind), **OPTIONS.get(kind, {}))
        return write_pack(found, root / kind, size=32, processes=1)

    return cache(make)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, and a map by PCA: UMAP compiles for many seconds and has tests of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(maps, "joint_map", lambda sets, seed=0: maps.pca_map(sets))
    return tmp_path


def network(pack, modality="rgb", classes=None, seed=0):
    """A source network that knows nothing, in a file."""
    classes = classes or pack.classes
    recipe = SourceRecipe(width=8)
    images = pack.load("train", None, (modality,))
    made = Source(small_network(len(classes), 8, seed).eval(), classes, recipe.normalisation(images))
    save_source(made, f"{modality}_{seed}.safetensors")
    return f"{modality}_{seed}.safetensors"


def adapted(pack, *words):
    result = call("adapt", "--pack", pack.folder, *SHORT, "--out", "run", "--device", "cpu", *words)
    assert result.exit_code == 0, result.output
    return run_folder.read(Path("run"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [("sunrgbd", "depth"), ("diml", "depth"), ("rgbnir", "nir"), ("folders", "depth"), ("lists", "depth")],
)
def test_two_commands_lead_from_an_imported_set_to_a_report(imported, here, monkeypatch, kind, target):
    monkeypatch.setattr(source, "SourceRecipe", lambda **about: SourceRecipe(**about, width=8))
    pack = imported(kind)
    trained = call("train-source", "--pack", pack.folder, *TRAINING)
    assert trained.exit_code == 0, trained.output
    domain = pack.domains[0]
    file = f"rgb_{kind}_{domain}.safetensors" if len(pack.domains) > 1 else f"rgb_{kind}.safetensors"
    card = load_source(here / file).card
    assert (card["set"], card["domain"], card["modality"]) == (kind, domain, "rgb")
    run = adapted(pack, "--target", target)
    found = load_source("run/adapted.safetensors")
    material = gather(run.settings)
    assert f": {len(material.target)} images to adapt to, {len(material.held_out)} held" in material.headline
    assert found.modality == target and found.classes == pack.classes
    assert found.card["adapted_from"] == file
    assert run.config.data_digest == splits.digest(pack) == card["data_digest"]
    page = (here / "run" / run_folder.REPORT).read_text()
    assert run.settings.place in page and "of the images right" in page and "rooms" not in page
    other = pack.domains[1] if len(pack.domains) > 1 else domain
    assert run.config.about["set"] == f"{kind}, {target} of {other}"
    held_out = splits.scenes(pack, target, other)[1]
    measured = json.loads((here / "run" / run_folder.RESULTS).read_text())
    assert measured["scores"][1]["held_out"] == pytest.approx(features.accuracy(found, held_out))


def test_the_published_protocol_is_that_of_the_tensors(imported):
    """Source: one sensor's colours; target: another's depth; pairs: all sensors; no scene twice."""
    pack = imported("sunrgbd")
    file = network(pack)
    settings = resolved(Settings(pack=str(pack.folder), source=file))
    assert (settings.domain, settings.target, settings.place) == ("kinect_v2", "depth", "sunrgbd-kinect_v2")
    material = gather(settings)
    learn, _ = splits.scenes(pack, "rgb", "kinect_v1")
    assert torch.equal(learn.images["rgb"], pack.load("train", "kinect_v1", ("rgb",)).images["rgb"])
    assert torch.equal(
        material.target.images["depth"].view(torch.int16),
        pack.load("train", "kinect_v2", ("depth",)).images["depth"].view(torch.int16),
    )
    assert material.held_out.names == pack.load("test", "kinect_v2", ("depth",)).names
    assert set(material.pairs.names) == set(pack.load("pairs").names)
    assert {name.split("/")[0] for name in material.pairs.names} == {"kv1", "kv2", "realsense", "xtion"}
    assert not set(material.pairs.kinds) & set(pack.classes)
    sets = [set(part.names) for part in (learn, material.target, material.held_out, material.pairs)]
    assert sum(map(len, sets)) == len(set.union(*sets))
    same = gather(Settings(pack=str(pack.folder), source=file, domain="kinect_v1", pair_count=5))
    assert same.target.names == learn.names and len(same.pairs) == 5


def test_without_pairs_no_colour_image_is_read(imported, monkeypatch):
    pack, read = imported("sunrgbd"), []
    file, load = network(pack), type(pack).load

    def noted(self, split, domain=None, modalities=None):
        read.append((split, tuple(modalities)))
        return load(self, split, domain, modalities)

    monkeypatch.setattr(type(pack), "load", noted)
    recipe = Recipe.for_method("shot")
    gather(Settings(pack=str(pack.folder), source=file, domain="xtion", method="shot", recipe=recipe))
    assert {modalities for _, modalities in read} == {("depth",)}


def test_a_run_on_a_pack_is_resumed_and_a_changed_pack_is_noticed(imported, here, monkeypatch):
    pack = imported("rgbnir")
    file = network(pack)
    run = adapted(pack, "--source", file)
    adapt = run_folder.adapt

    def interrupted(*args, **kwargs):
        for event in adapt(*args, **kwargs):
            if getattr(event, "step", 0) == 2:
                raise KeyboardInterrupt
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "adapt", interrupted)
        words = ("--source", file, "--out", "cut", "--device", "cpu")
        assert call("adapt", "--pack", pack.folder, *SHORT, *words).exit_code == 130
    refused(call("adapt", "--resume", "cut", "--pack", "elsewhere"), "leave --pack out")
    assert call("adapt", "--resume", "cut").exit_code == 0
    assert epochs_without_seconds(here / "cut") == epochs_without_seconds(run.folder)
    assert (here / "cut" / run_folder.CHECKPOINT).read_bytes() == (
        run.folder / run_folder.CHECKPOINT
    ).read_bytes()
    copied = shutil.copytree(pack.folder, here / "mine")
    settings = Settings(pack=str(copied), source=file, recipe=run.settings.recipe)
    begun = run_folder.create(here / "begun", settings, gather(settings))
    write_manifest(copied, open_pack(copied).manifest | {"notes": ["imported again"]})
    with pytest.raises(LabError, match="the images changed"):
        run_folder.resume(begun, gather(settings))


def test_the_command_of_a_run_on_a_pack_makes_the_same_run(imported):
    pack = imported("sunrgbd")
    settings = Settings(
        method="shot", source="a.safetensors", pack=str(pack.folder), domain="xtion", target="depth",
        depth_encoding="hha", field_of_view=60.5, oracle="o.safetensors", seed=3,
        recipe=Recipe.for_method("shot"),
    )  # fmt: skip
    found = []

    def note(settings):
        found.append(settings)
        raise LabError("enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_settings, "gather", note)
        result = call(*shlex.split(settings.command())[1:])
    assert found == [settings], result.output
    assert from_json(Settings, json.loads(json.dumps(asdict(settings)))) == settings


# networks


def test_a_backbone_begins_at_its_weights_and_is_remembered(imported, here):
    pack = imported("rgbnir")
    trunk = foreign.seeded(lambda: torchvision.models.resnet18(), 3)
    torch.save(trunk.state_dict(), here / "weights.pth")
    words = ("--backbone", "resnet18", "--weights", "weights.pth")
    assert call("train-source", "--pack", pack.folder, *TRAINING, *words).exit_code == 0
    stored = load_source("rgb_rgbnir.safetensors")
    assert isinstance(stored.network.trunk, ResNetTrunk) and stored.normalisation == weights_normalisation(
        "resnet18"
    )
    about = stored.card["recipe"]
    assert (about["backbone"], about["trunk_rate"], about["rate"]) == ("resnet18", 1e-3, 1e-2)
    moved = stored.network.trunk.conv1.weight - trunk.conv1.weight
    assert 0 < moved.abs().max() < 0.1  # from the file's weights, at a small rate
    adapted(pack)
    assert load_source("run/adapted.safetensors").network.trunk.name == "resnet18"


def test_the_trunk_learns_at_its_own_rate():
    images = patterned(16, 0).only("rgb")
    weights = []
    for rate in (None, 1e-12):
        recipe = SourceRecipe(epochs=1, batch_size=8, width=8, trunk_rate=rate, schedule="paper")
        *_, last = source.train(images, recipe)
        assert isinstance(last, Trained)
        weights.append(last.source.network)
    start = recipe.network(3, 0)
    same, slow = weights
    for name, value in start.trunk.named_parameters():
        assert not torch.allclose(same.trunk.get_parameter(name), value)
        torch.testing.assert_close(slow.trunk.get_parameter(name), value)
    assert not torch.allclose(slow.bottleneck[0].weight, start.bottleneck[0].weight)


def test_several_sources_have_bottlenecks_of_one_width_and_the_same_classes(imported, here):
    pack = imported("folders")
    narrow = Source(
        backbone_network("resnet18", 3, width=24).eval(), pack.classes, weights_normalisation("resnet18")
    )
    save_source(narrow, here / "narrow.safetensors")
    adapted(pack, "--source", "narrow.safetensors,narrow.safetensors")
    assert len(networks_of(load_source("run/adapted.safetensors").network)) == 2
    unlike = f"{network(pack)},narrow.safetensors"
    refused(call("adapt", "--pack", pack.folder, "--source", unlike), "bottlenecks of 128 and 24 numbers")
    save_source(replace(narrow, classes=("cat", "dog", "owl")), here / "pets.safetensors")
    refused(
        call("adapt", "--pack", pack.folder, "--source", "pets.safetensors"),
        "knows the classes cat, dog, owl",
    )


# how depth is read


def test_the_encoding_goes_from_the_command_into_the_network(imported):
    pack = imported("sunrgbd")
    run = adapted(pack, "--source", network(pack), "--depth-encoding", "normals")
    found = load_source("run/adapted.safetensors").normalisation
    across = pack.intrinsics("train", "kinect_v2")[0][0] / crop_side(torch.zeros(1, 1, 32, 32))
    assert found.depth_encoding == "normals" and found.focal[0] == pytest.approx(across, rel=1e-3)
    assert "the set&#39;s intrinsics" in (run.folder / run_folder.REPORT).read_text()
    state = run_folder.resume(run, gather(run.settings))
    assert state.adapted.normalisation == found


def test_what_is_known_of_a_camera(imported):
    sun, diml = imported("sunrgbd"), imported("diml")
    assert splits.focal(sun, "xtion", 60)[0] == focal_of(60)
    assert splits.focal(diml, "diml")[0] == FOCAL
    assert splits.focal(sun, "xtion")[1] == "the set's intrinsics"


def test_the_oracle_of_a_pack_reads_as_the_target_does(imported, here):
    pack = imported("diml")
    words = ("--modality", "depth", "--depth-encoding", "inverse", "--out", "oracle.safetensors")
    assert call("train-source", "--pack", pack.folder, *TRAINING, *words).exit_code == 0
    assert load_source("oracle.safetensors").normalisation.depth_encoding == "inverse"
    adapted(pack, "--source", network(pack), "--oracle", "oracle.safetensors")
    assert json.loads((here / "run" / run_folder.RESULTS).read_text())["has_oracle"]
    words = ("--source", network(pack), "--oracle", network(pack, seed=1))
    refused(call("adapt", "--pack", pack.folder, *words), "reads rgb, but the target is depth")


# labels that are missing, and what cannot be done


def test_a_set_without_test_scenes_holds_a_fifth_out(imported):
    pack = imported("lists")
    assert "test" not in pack.splits
    learn, held_out = splits.scenes(pack, "rgb", "kv1")
    assert set(learn.names).isdisjoint(held_out.names)
    assert len(learn) + len(held_out) == len(pack.load("train", None, ("rgb",)))
    assert set(held_out.kinds) == set(pack.classes)
    again = splits.scenes(pack, "rgb", "kv1")[1]
    assert again.names == held_out.names


def test_images_without_a_label_are_adapted_to_and_not_measured(here):
    root = formats.write_folders(here / "set", each=4)
    (root / "depth" / "unlabelled").mkdir()
    for kind in formats.TASK:
        (root / "depth" / kind / "küche nr 0.png").rename(root / "depth" / "unlabelled" / f"{kind}.png")
    found = survey("folders", root, task=formats.TASK, unpaired=True)
    pack = write_pack(found, here / "pack", size=32, processes=1)
    run = adapted(pack, "--source", network(pack))
    material = gather(run.settings)
    assert list(material.target.kinds).count("unknown") == 3
    assert len(material.labelled_target) == len(material.target) - 3
    assert "3 of the images adapted to have no label" in (run.folder / run_folder.REPORT).read_text()
    found = load_source("run/adapted.safetensors")
    measured = json.loads((here / "run" / run_folder.RESULTS).read_text())["scores"][1]
    assert measured["adapted_to"] == pytest.approx(features.accuracy(found, material.labelled_target))


def test_errors_are_one_sentence_and_say_what_to_do(imported, raw, here):
    pack = imported("folders")
    refused(call("adapt", "--pack", pack.folder), "rgb_folders.safetensors", "train-source --pack")
    shutil.copytree(raw("folders"), here / "uncoloured")
    for kind in formats.TASK:
        shutil.rmtree(here / "uncoloured" / "rgb" / kind)
    found = survey("folders", here / "uncoloured", task=formats.TASK, unpaired=True)
    refused(call("adapt", "--pack", write_pack(found, here / "uncoloured-pack", size=32, processes=1).folder),
            "no colour pictures of the task", "--source")  # fmt: skip
    file = network(pack)
    refused(call("adapt", "--pack", "nowhere", "--source", file), "nowhere is no pack")
    refused(call("adapt", "--pack", pack.folder, "--sensor", "xtion"), "--sensor is about the shipped rooms")
    refused(call("adapt", "--domain", "xtion"), "--pack")
    refused(
        call("adapt", "--pack", pack.folder, "--source", file, "--domain", "moon"),
        "'moon' is unknown: choose one",
    )
    refused(call("adapt", "--pack", pack.folder, "--source", file, "--target", "nir"), "has no nir images")
    refused(call("adapt", "--pack", pack.folder, "--source", file, "--target", "rgb"), "reads rgb already")
    refused(call("adapt", "--pack", pack.folder, "--source", file, "--pair-count", "99"), "99 were asked for")
    refused(
        call("adapt", "--pack", pack.folder, "--source", file, "--depth-encoding", "sepia"), "metric, inverse"
    )
    other = network(pack, classes=("cat", "dog", "owl"), seed=2)
    refused(call("adapt", "--pack", pack.folder, "--source", other), "knows the classes cat, dog, owl")
    refused(call("adapt", "--pack", pack.folder, "--source", str(pack.folder)), "there is no file")
    refused(
        call("train-source", "--pack", pack.folder, "--modality", "swir"), "'swir' is unknown: choose one"
    )
    refused(call("train-source", "--pack", pack.folder, "--backbone", "resnet19"), "resnet18")
    refused(call("train-source", "--pack", pack.folder, "--weights", "x.pth"), "random weights")
    refused(call("train-source", "--domain", "xtion"), "--domain is about an imported set")
    refused(call("train-source", "--pack", pack.folder, "--depth-encoding", "hha"), "no depth encoding")
    refused(call("train-source", "--pack", pack.folder, "--rate", "0"), "rate 0.0 is out of range")
    refused(call("train-source", "--pack", pack.folder, "--device", "tpu"), "'tpu' is unknown", "auto, cpu")
    refused(call("train-source", "--pack", pack.folder, "--out", f"{file}/x"), "cannot be written", "--out")
    alone = write_pack(survey("folders", raw("folders")), here / "alone", size=32, processes=1)
    refused(
        call("adapt", "--pack", alone.folder, "--source", network(alone, seed=4)), "no task-irrelevant pairs"
    )
    plain = ("--method", "adabn", "--out", "plain", "--device", "cpu", "--source", "rgb_4.safetensors")
    assert call("adapt", "--pack", alone.folder, *plain).exit_code == 0
    assert not (here / "run").exists()


def test_a_class_that_one_modality_lacks_is_named(here):
    root = formats.write_folders(here / "set", each=3)
    for file in (root / "depth" / "office").iterdir():
        file.unlink()
    found = survey("folders", root, task=formats.TASK, unpaired=True)
    pack = write_pack(found, here / "pack", size=32, processes=1)
    refused(
        call("adapt", "--pack", pack.folder, "--source", network(pack)),
        "no depth training image of office",
        "--task",
    )
    assert open_pack(pack.folder).classes == formats.TASK
    task = splits.pack_training_task(pack, SourceRecipe(width=8))  # of the colours, all classes are there
    assert set(task.images.kinds) == set(formats.TASK)


def test_a_network_by_its_name_alone_may_be_a_resnet():
    assert source.source_recipe("resnet50", None, {}).weights == "DEFAULT"
    recipe = SourceRecipe(backbone="resnet18")
    ours, theirs = recipe.network(4, 1).state_dict(), backbone_network("resnet18", 4, seed=1).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def blocked(sizes, classes=("a", "b")):
    """Scenes of two classes, each in blocks of the given sizes."""
    names, kinds, blocks = [], [], []
    for kind in classes:
        for block, size in enumerate(sizes):
            names += [f"{kind}-{block}-{i:03}" for i in range(size)]
            kinds += [kind] * size
            blocks += [f"{kind}-{block}"] * size
    images = {"depth": torch.zeros(len(names), 1, 8, 8, dtype=torch.uint16)}
    return PairedImages(images, tuple(names), tuple(kinds), classes, tuple(blocks))


def test_a_recording_stays_on_one_side():
    learn, held_out = splits._divided(blocked([10, 3, 8, 12, 7]))
    assert not set(learn.blocks) & set(held_out.blocks)
    assert 0.15 < len(held_out) / 80 < 0.4
    assert set(learn.kinds) == set(held_out.kinds) == {"a", "b"}


def test_a_single_recording_is_cut_once():
    learn, held_out = splits._divided(blocked([10]))
    assert held_out.names == tuple(f"{kind}-0-{i:03}" for kind in "ab" for i in (8, 9))
    assert len(learn) == 16
