"""What a video file may open: itself. Would catch a playlist that reads another file, and a name taken for an address."""

import struct

import numpy as np
import pytest
from helpers import frame

from featherflow.errors import FeatherflowError, FileError

av = pytest.importorskip("av")

from featherflow.video.containers import open_video  # noqa: E402
from featherflow.video.reading import open_clip  # noqa: E402


def write_video(path, kind: str, codec: str = "mpeg4", frames: int = 5) -> None:
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        wide = frame(64, 160)
        for index in range(frames):
            picture = np.ascontiguousarray(wide[:, 2 * index : 2 * index + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def count(path) -> int:
    return sum(1 for _ in open_clip(path))


@pytest.fixture
def secret(tmp_path):
    """A stream that a playlist may name."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_video(folder / "secret.ts", "mpegts", "mpeg2video")
    return folder / "secret.ts"


LISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
    "hls, address": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n#EXT-X-ENDLIST\n",
    "hls after blanks": "\n\n #EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{path}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet><Representation '
    'id="0" bandwidth="1"><BaseURL>{path}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "rtsp": "[Reference]\nRef1=http://127.0.0.1:9/{path}\n",
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000000000\n",
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("name", ["clip.m3u8", "clip.mp4", "clip.ts", "clip.ffconcat", "clip.sdp", "clip.mpd", "clip"])
def test_a_list_of_other_files_is_no_video(secret, tmp_path, kind, name):
    path = tmp_path / name
    path.write_text(LISTS[kind].format(path=secret))
    with pytest.raises(FeatherflowError) as error:
        count(path)
    assert str(error.value).isprintable()


def test_a_pattern_is_no_name(tmp_path):
    """FFmpeg would take %d in the name of an image for a sequence of files."""
    from PIL import Image

    for index in range(3):
        Image.fromarray(frame(seed=index)).save(tmp_path / f"secret{index}.jpg")
    (tmp_path / "secret%d.mjpg").write_bytes(b"no video at all")
    with pytest.raises(FileError):
        count(tmp_path / "secret%d.mjpg")


def test_a_video_that_refers_to_another(secret, tmp_path):
    """QuickTime keeps media in other files, named by an alias."""
    path = tmp_path / "clip.mov"
    write_video(path, "mov")
    data = path.read_bytes()
    at = data.index(b"url \x00\x00\x00\x01")
    alias = str(secret).encode()
    longer = struct.pack(">I", 12 + len(alias) + 1) + b"url \x00\x00\x00\x00" + alias + b"\0"
    path.write_bytes(data[: at - 4] + longer + data[at + 8 :])
    try:
        assert count(path) in range(6)  # what is in the file itself, or a refusal
    except FeatherflowError:
        pass


@pytest.mark.parametrize(
    "kind, codec, name",
    [
        ("mp4", "mpeg4", "2024-11-14T22:57:44.mp4"),
        ("mp4", "mpeg4", "take: one.mp4"),
        ("matroska", "mpeg4", "http:__clip.mkv"),
        ("avi", "mpeg4", "file:clip.avi"),
        ("mpegts", "mpeg2video", "clip.ts"),
        ("mpeg", "mpeg2video", "clip%03d.mpg"),
        ("mov", "mpeg4", "clip.mov"),
        ("nut", "mpeg4", "clip.nut"),
        ("flv", "flv1", "clip.flv"),
        ("asf", "mpeg4", "clip.wmv"),
        ("mpeg2video", "mpeg2video", "clip.m2v"),
        ("mpeg4", "mpeg4", "clip"),
        ("mp4", "mpeg4", "clip.txt"),
    ],
)
def test_videos_of_every_kind_under_any_name(tmp_path, kind, codec, name):
    try:
        write_video(tmp_path / name if ":" not in name else tmp_path / "made", "m4v" if kind == "mpeg4" else kind, codec)
    except (av.error.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg does not write it: {error}")
    if ":" in name:
        (tmp_path / "made").rename(tmp_path / name)
    assert count(tmp_path / name) == 5


def test_tags_that_are_no_text(tmp_path):
    write_video(tmp_path / "clip.mkv", "matroska")
    data = (tmp_path / "clip.mkv").read_bytes()
    assert b"ENCODER" in data
    (tmp_path / "clip.mkv").write_bytes(data.replace(b"Lavf", b"\xff\xfe\xc3\x28"))
    assert count(tmp_path / "clip.mkv") == 5


def test_the_command_line_refuses_a_playlist(secret, tmp_path, capsys):
    from helpers import run_command

    (tmp_path / "clip.m3u8").write_text(LISTS["hls"].format(path=secret))
    assert run_command("video", tmp_path / "clip.m3u8", "-o", tmp_path / "flow.mp4", "--model", "horn-schunck", "--json") == 3
    assert "playlist" in capsys.readouterr().err and not (tmp_path / "flow.mp4").exists()


def test_nothing_is_left_open(tmp_path):
    import gc
    import os

    write_video(tmp_path / "clip.mp4", "mp4")
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files by /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with open_video(tmp_path / "clip.mp4"):
            pass
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
