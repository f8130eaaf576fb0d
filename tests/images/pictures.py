"""A picture, and the same with text chunks."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fromnoise.images.opening import open_image

PICTURE = Image.linear_gradient("L").resize((16, 8)).convert("RGB")


def with_chunks(**chunks: str) -> Image.Image:
    """As it comes back from a PNG; an underscore in a name stands for a hyphen when it begins with `sd_`."""
    info = PngInfo()
    for key, value in chunks.items():
        info.add_text(key.replace("sd_", "sd-"), value)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "PNG", pnginfo=info)
    return open_image(buffer.getvalue())
