"""Puts each fault of the published code back, one at a time, and shows which test notices.

``python tests/put_faults_back.py`` works on a copy, takes a few minutes, and fails when a test does not fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Fault:
    """A passage of ours, what the fault makes of it, and the test that is named after it."""

    number: int
    what: str
    file: str
    ours: str
    faulty: str
    test: str


FAULTS = (
    Fault(
        1, "L_BN is multiplied by a trainable weight that nothing holds", "method/adaptation.py",
        'return mixing.sigmoid() if recipe.bn_share == "raw" else nets.mixing_weights(mixing)',
        "return mixing.sigmoid()",
        "method/test_faults.py::test_fault_1_with_one_source_nothing_can_switch_bn_matching_off",
    ),
    Fault(
        1, "the mixing weights are not normalised", "networks/networks.py",
        "return logsigmoid(g).softmax(dim=0)", "return g.sigmoid()",
        "method/test_faults.py::test_fault_1_the_share_of_bn_stands_here_and_falls_as_published",
    ),
    Fault(
        2, "all sources are compared with the statistics of one", "method/steps.py",
        "batch.source_statistics[k], recipe", "batch.source_statistics[0], recipe",
        "method/test_faults.py::test_fault_2_every_source_is_compared_with_its_own_statistics_at_full_weight",
    ),
    Fault(
        3, "pairs are taken from two listings as they come", "images/finders.py",
        "scenes[composed(stem(file)).casefold()]", "scenes[str(files.index(file))]",
        "method/test_faults.py::test_fault_3_pairs_are_made_by_name_and_orphans_are_refused",
    ),
    Fault(
        4, "the halves of a pair are flipped apart", "images/paired_images.py",
        "for index in (here, y, x))",
        'for index in (here, y, x if modality == "rgb" else x.flip(1)))',
        "images/test_paired_images.py::test_fault_4_both_halves_of_a_pair_are_cut_and_flipped_alike",
    ),
    Fault(
        5, "the pairs begin anew at every step", "images/paired_images.py",
        "    first = draw * batch\n", "    first = 0\n",
        "method/test_adaptation.py::test_fault_5_every_pass_covers_all_pairs_before_the_next",
    ),
    Fault(
        6, "depth saturates", "images/encodings.py",
        "values = images.to(torch.float32)", "values = images.to(torch.float32).clamp(max=8191)",
        "images/test_paired_images.py::test_fault_6_depth_keeps_sixteen_bits_and_missing_is_not_near",
    ),
    Fault(
        6, "missing depth reads as near", "images/encodings.py",
        "return encoded if valid is None else encoded.mul_(valid)", "return encoded",
        "images/test_paired_images.py::test_fault_6_depth_keeps_sixteen_bits_and_missing_is_not_near",
    ),
    Fault(
        7, "the target is normalised by the source's numbers", "method/adaptation.py",
        "encodings.measure(target.images[target.modality], target.modality)",
        "dataclasses.replace(sources[0].normalisation, modality=target.modality)",
        "method/test_faults.py::test_fault_7_the_target_is_normalised_by_its_own_numbers",
    ),
    Fault(
        8, "what was kept is the live network", "method/adaptation.py",
        "networks = [copy.deepcopy(networks_of(one.network)[0]) for one in sources]",
        "networks = [networks_of(one.network)[0] for one in sources]",
        "method/test_adaptation.py::test_fault_8_a_saved_state_is_a_copy_not_the_live_weights",
    ),
    Fault(
        9, "pairs move the trunk's running statistics", "method/steps.py",
        "with frozen_running_statistics(trunk) if frozen else nullcontext():", "if True:",
        "method/test_adaptation.py::test_fault_9_running_statistics_are_the_targets_alone",
    ),
    Fault(
        9, "pairs move the bottleneck's running statistics", "method/steps.py",
        "with frozen_running_statistics(network.bottleneck) if frozen else nullcontext():", "if True:",
        "method/test_faults.py::test_fault_9_a_pass_over_pairs_leaves_every_running_statistic",
    ),
    Fault(
        10, "without pseudo-labels the network stays in eval mode", "method/adaptation.py",
        "self.network.train()", "self.network.train(recipe.lambda_pl > 0)",
        "method/test_adaptation.py::test_fault_10_target_batches_are_normalised_by_themselves_whatever_the_terms",
    ),
    Fault(
        11, "the norm grows with the batch", "method/losses.py",
        "    return F.mse_loss(target_features, wanted)\n",
        "    return F.mse_loss(target_features, wanted) * target_features.numel()\n",
        "method/test_losses.py::test_fault_11_mean_form_does_not_depend_on_the_batch",
    ),
    Fault(
        12, "a value is copied from the device at every step", "method/steps.py",
        "mixed = weighted_sum(logits, weights, whole)",
        "mixed = weighted_sum(logits, weights, whole); mixed.sum().item()",
        "method/test_faults.py::test_fault_12_a_step_copies_nothing_from_the_device_per_layer",
    ),
    Fault(
        12, "a loop over images", "method/pseudolabels.py",
        "return F.normalize(torch.cat([features, features.new_ones(len(features), 1)], dim=1), dim=1)",
        "longer = torch.cat([features, features.new_ones(len(features), 1)], dim=1)\n"
        "    return torch.stack([F.normalize(one, dim=0) for one in longer])",
        "method/test_faults.py::test_fault_12_no_loop_over_images_and_few_parameter_groups",
    ),
    Fault(
        13, "labels of the target reach the method", "images/paired_images.py",
        'kinds=("unknown",) * len(self), classes=(), blocks=()',
        "kinds=self.kinds, classes=self.classes, blocks=self.blocks",
        "method/test_faults.py::test_fault_13_the_images_that_judge_are_not_the_images_adapted_to",
    ),
)  # fmt: skip


def copied(folder: Path) -> Path:
    """The library and its tests, to be spoilt; the data are only looked at."""
    for name in ("socketlab", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    (folder / "data").symlink_to(REPOSITORY / "data")
    return folder


def passes(folder: Path, test: str) -> bool:
    """Whether a test passes on the copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"]
    ran = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if ran.returncode not in (0, 1):  # the test was not found, or could not start
        raise SystemExit(f"{test} did not run:\n{ran.stdout}{ran.stderr}")
    return ran.returncode == 0


def noticed(fault: Fault, folder: Path) -> bool:
    """Put the fault in, run its test, take it out again."""
    path = folder / "socketlab" / fault.file
    ours = path.read_text(encoding="utf-8")
    if fault.ours not in ours:
        raise SystemExit(f"fault {fault.number}: {fault.file} has no {fault.ours!r} any more: renew the list")
    path.write_text(ours.replace(fault.ours, fault.faulty, 1), encoding="utf-8")
    try:
        return not passes(folder, fault.test)
    finally:
        path.write_text(ours, encoding="utf-8")


def main() -> int:
    """All faults; 1 when a test stays green with its fault in place."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = copied(Path(temporary))
        for test in sorted({fault.test for fault in FAULTS}):
            if not passes(folder, test):
                raise SystemExit(f"{test} fails without any fault")
        missed = 0
        for fault in FAULTS:
            found = noticed(fault, folder)
            missed += not found
            word = "noticed" if found else "MISSED "
            print(f"{word} {fault.number:2} {fault.what}: {fault.test}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
