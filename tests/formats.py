"""Small data sets in the exact on-disk formats of the real ones, made of PocketRooms."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from socketlab import rooms

TASK = ("bathroom", "bedroom", "office")
OTHERS = ("hospital_ward", "hotel_suite")
SUN_FOLDERS = {
    "kinect_v1": ("kv1/NYUdata/NYU{:04}", "kv1/b3dodata/img_{:04}"),
    "kinect_v2": (
        "kv2/kinect2data/{:06}_2014-05-26_14-23-37_2605951343{:02}_rgbf000103-resize",
        "kv2/align_kv2/2014-12-16_16-55-46_09495963{:04}_rgbf000064-resize",
    ),
    "realsense": (
        "realsense/lg/2014_10_21-18_15_44-13110000{:02}",
        "realsense/shr/2014_10_28-11_21_24-{:04}",
    ),
    "xtion": (
        "xtion/sun3ddata/mit_lab_{:02}/scan_1/0000001-{:012}",
        "xtion/xtion_align_data/2014_10_21_{:02}_01_0000{:04}",
    ),
}


@cache
def _material(split: str):
    return rooms.load(split, "kinect_v1", ("rgb", "nir", "depth"))


def picture(kind: str, number: int, modality: str, height: int = 48, width: int = 64) -> np.ndarray:
    """Scene ``number`` of a kind: (H, W, 3) uint8, (H, W) uint8 or (H, W) uint16 with very far places."""
    material = _material("target_test" if kind in rooms.CLASSES else "ti_near")
    mine = [i for i, one in enumerate(material.kinds) if one == kind]
    image = material.images[modality][mine[number % len(mine)]].numpy()[:, :height, :width]
    if modality == "rgb":
        return np.ascontiguousarray(image.transpose(1, 2, 0))
    image = image[0].copy()
    if modality == "depth":
        image[height // 2, width // 2 - 3 : width // 2 + 3] = (0, 8191, 8192, 12_345, 40_000 + number, 65_535)
        image[2:5, width // 2 - 3 : width // 2] = 0
    return image


def write_sunrgbd(root: Path, each: int = 4, kinds=TASK, others=OTHERS) -> Path:
    """``SUNRGBD`` with four sensors; kinds seen by all, and another kind or two that some sensors saw."""
    for s, (domain, places) in enumerate(SUN_FOLDERS.items()):
        number = 0
        for kind in (*kinds, others[s % len(others)]):
            for _ in range(each):
                number += 1
                name = places[number % 2].format(number, number)
                write_sun_frame(root / "SUNRGBD" / name, domain, kind, number)
    return root / "SUNRGBD"


def write_sun_frame(folder: Path, domain: str, kind: str, number: int) -> None:
    for below in ("image", "depth", "depth_bfx"):
        (folder / below).mkdir(parents=True)
    Image.fromarray(picture(kind, number, "rgb")).save(folder / "image" / f"{number:07}.jpg", quality=95)
    depth = picture(kind, number, "depth")
    rotated = (depth << 3) | (depth >> 13)
    # in sun3d, the two pictures of a frame were taken at different times, and are named after them
    stem = f"{number:07}" if domain != "xtion" else f"{number + 3:07}"
    Image.fromarray(rotated).save(folder / "depth" / f"{stem}.png")
    Image.fromarray(rotated | 8).save(folder / "depth_bfx" / f"{stem}.png")
    (folder / "scene.txt").write_text(kind)
    (folder / "intrinsics.txt").write_text("518.8 0.000 32.0\n0.000 519.4 24.0\n0.000 0.000 1.000\n")
    (folder / "annotation2Dfinal").mkdir()
    (folder / "annotation2Dfinal" / "index.json").write_text("{}")


def write_diml(root: Path, each: int = 3) -> Path:
    """``{train,test}/HR/<NN. Scene>/{color,depth_filled}``."""
    scenes = {"11. Bedroom": "bedroom", "12. Livingroom": "living_room", "03. Kitchen": "kitchen",
              "07. Library": "studio_flat", "10. Corridor": "waiting_room", "15. Restaurant": "cafeteria",
              "16. Billiard Hall": "dormitory", "05. Computer Room": "computer_lab"}  # fmt: skip
    for half in ("train", "test"):
        for folder, kind in scenes.items():
            for below in ("color", "depth_filled"):
                (root / half / "HR" / folder / below).mkdir(parents=True)
            for i in range(each):
                stem, number = f"in_k_{half[1]}_160224_{i:06}", i + (7 if half == "test" else 0)
                place = root / half / "HR" / folder
                Image.fromarray(picture(kind, number, "rgb", 36, 64)).save(place / "color" / f"{stem}_c.png")
                depth = Image.fromarray(picture(kind, number, "depth", 36, 64))
                depth.save(place / "depth_filled" / f"{stem}_depth_filled.png")
    return root


def write_rgbnir(root: Path, each: int = 3) -> Path:
    """``nirscene1/<class>/NNNN_rgb.tiff`` and ``NNNN_nir.tiff``."""
    classes = ["country", "field", "forest", "indoor", "mountain", "oldbuilding", "street", "urban", "water"]
    kinds = (*rooms.CLASSES, "laundry")
    for c, (name, kind) in enumerate(zip(classes, kinds, strict=True)):
        folder = root / "nirscene1" / name
        folder.mkdir(parents=True)
        for i in range(each):
            Image.fromarray(picture(kind, i, "rgb")).save(folder / f"{i:04}_rgb.tiff", compression="tiff_lzw")
            nir = Image.fromarray(picture(kind, i, "nir"))
            nir.convert("RGB" if c == 0 else "L").save(folder / f"{i:04}_nir.tiff")
    return root


def write_folders(root: Path, each: int = 4, kinds=(*TASK, *OTHERS), modalities=("rgb", "depth")) -> Path:
    """``<modality>/<class>/<stem>.png``, stems with spaces and Unicode."""
    for modality in modalities:
        for kind in kinds:
            (root / modality / kind).mkdir(parents=True)
            for i in range(each):
                ending = "jpg" if modality == "rgb" and i % 2 else "png"
                image = Image.fromarray(picture(kind, i, modality))
                image.save(root / modality / kind / f"küche nr {i}.{ending}")
    return root


def write_lists(root: Path, each: int = 3, domain: str = "kv1") -> Path:
    """Lists of the published form beside folders of pictures: the task's, and pairs matched by line."""
    write_folders(root / "my pictures", each)
    for modality in ("rgb", "depth"):
        lines = {"": [], "_ti": []}
        for label, kind in enumerate((*TASK, *OTHERS)):
            for file in sorted((root / "my pictures" / modality / kind).iterdir()):
                told = "" if kind in TASK else "_ti"
                number = -1 if (label, file.stem[-1]) == (0, "0") and modality == "depth" else label
                lines[told].append(f"{file.relative_to(root)} {number}")
        for told, text in lines.items():
            (root / f"{domain}_{modality}{told}_list.txt").write_text(
                "\n".join(text) + "\n", encoding="utf-8"
            )
    return root


WRITERS = {
    "sunrgbd": write_sunrgbd,
    "diml": write_diml,
    "rgbnir": write_rgbnir,
    "folders": write_folders,
    "lists": write_lists,
}


def counts(found) -> dict[str, dict[str, dict[str, int]]]:
    """Scenes of a survey by split, domain and class."""
    counted: dict = {}
    for frame in found.frames:
        kinds = counted.setdefault(frame.split, {}).setdefault(frame.domain, {})
        kinds[frame.kind] = kinds.get(frame.kind, 0) + 1
    return counted
