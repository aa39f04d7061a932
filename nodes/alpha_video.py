"""Strata Save Alpha Video and Load Alpha Video: pictures with alpha, sound and timecode into one file, and back."""

from __future__ import annotations

import os

import folder_paths
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io, ui

from ..comfy_host.video_facts import audio_of, sound_of, video_facts
from ..imaging.compositing.composite import PREMULTIPLIED, STRAIGHT
from ..imaging.files.alpha_video import CODECS, save_alpha_video
from ..imaging.files.read_alpha_video import read_alpha_video
from ..imaging.files.timecode import Timecode, exact_rate
from .places import fingerprint, graph_texts, output_name, output_place, stored_path
from .saying import say, steps

AS_STATED = "as the file says"


def video_files() -> list[str]:
    """The videos in ComfyUI's input folder, then those in its output folder, marked as such."""
    def videos(folder: str) -> list[str]:
        files = (entry.name for entry in os.scandir(folder) if entry.is_file()) if os.path.isdir(folder) else ()
        return sorted(folder_paths.filter_files_content_types(list(files), ["video"]))

    made = [f"{name} [output]" for name in videos(folder_paths.get_output_directory())]
    return videos(folder_paths.get_input_directory()) + made


class SaveAlphaVideo(io.ComfyNode):
    """Pictures and alpha into a video file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataSaveAlphaVideo",
            display_name="Strata Save Alpha Video",
            category="Strata/files",
            description="Saves pictures with their alpha as ProRes 4444 (.mov), FFV1 (.mkv, lossless) or VP9 (.webm), "
                        "with sound and timecode.",
            search_aliases=["prores", "prores 4444", "webm alpha", "transparent video", "ffv1", "rgba video"],
            inputs=[
                io.String.Input("filename_prefix", default="shot",
                                tooltip="Folder and name inside ComfyUI's output folder; _v001 is added. Nothing is "
                                        "ever overwritten."),
                io.Image.Input("images", tooltip="The foreground, straight: its colour not multiplied by alpha. A "
                                                 "fourth channel is its alpha."),
                io.Mask.Input("alpha", optional=True, tooltip="The matte, white is foreground; one for every frame or "
                                                              "one for all. Wins over a fourth channel."),
                io.Combo.Input("codec", options=list(CODECS),
                               tooltip="prores 4444: 10 bits, for editing. ffv1: 16 bits, lossless, large. vp9: 8 "
                                       "bits, small, for browsers."),
                io.Combo.Input("alpha_mode", options=[STRAIGHT, PREMULTIPLIED],
                               tooltip="How the file holds colour. Straight keeps most and has no matte colour; "
                                       "premultiplied multiplies it over black, for programs that want that."),
                io.Float.Input("frame_rate", default=24.0, min=0.01, max=1000.0, step=0.001,
                               tooltip="Frames a second; 23.976, 29.97, 59.94 are stored as exact fractions. Not read "
                                       "when a source is connected."),
                io.String.Input("timecode", default="",
                                tooltip="Of the first frame, HH:MM:SS:FF, or ;FF for drop-frame; empty for the "
                                        "source's, or none."),
                io.Audio.Input("audio", optional=True, tooltip="Sound, cut to the length of the pictures. Wins over "
                                                               "the source's."),
                io.Video.Input("source", optional=True, tooltip="The plate's own video: its frame rate, sound and "
                                                                "timecode are kept."),
                io.Boolean.Input("save_workflow", default=True, advanced=True,
                                 tooltip="Store this graph in the file."),
            ],
            outputs=[io.String.Output("file", tooltip="Where the video lies.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, filename_prefix: str, images, codec: str, alpha_mode: str, frame_rate: float, timecode: str = "",
                alpha=None, audio=None, source=None, save_workflow: bool = True) -> io.NodeOutput:
        rate, sound, label = video_facts(source) if source is not None else (exact_rate(frame_rate), None, None)
        label = Timecode.parse(timecode, rate) if timecode.strip() else label
        frames = max(len(clip) for clip in (images, alpha) if clip is not None)
        folder, name = output_place(filename_prefix, images.shape[2], images.shape[1])
        saved = save_alpha_video(
            folder, name, images, alpha, codec, rate, premultiplied=alpha_mode == PREMULTIPLIED,
            sound=sound_of(audio) or sound, timecode=label, texts=graph_texts(cls.hidden) if save_workflow else None,
            after_frame=steps(frames))
        said = f"{output_name(saved.path)}: {frames} frames at {rate} a second, alpha {alpha_mode}" + (
            " over black" if alpha_mode == PREMULTIPLIED else "")
        if saved.clamped:
            said += "\nValues outside 0..1 were clamped; Strata Save Layers EXR keeps them."
        shown = say(cls, said)
        if saved.path.suffix == ".webm":  # the only one of these that browsers play
            place = os.path.relpath(saved.path.parent, folder_paths.get_output_directory())
            shown = ui.PreviewVideo([ui.SavedResult(saved.path.name, "" if place == "." else place,
                                                    io.FolderType.output)])
        return io.NodeOutput(output_name(saved.path), ui=shown)


class LoadAlphaVideo(io.ComfyNode):
    """A video file into pictures and alpha."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataLoadAlphaVideo",
            display_name="Strata Load Alpha Video",
            category="Strata/files",
            description="Loads every frame of a video with its alpha: ProRes 4444, FFV1, VP9 and VP8, QuickTime "
                        "Animation and others; with sound, exact rate and timecode.",
            search_aliases=["prores", "webm alpha", "transparent video", "rgba video", "load video alpha"],
            inputs=[
                io.Combo.Input("file", options=video_files(), upload=io.UploadType.video,
                               tooltip="A video in ComfyUI's input folder, or, marked so, in its output folder."),
                io.Combo.Input("alpha_mode", options=[AS_STATED, STRAIGHT, PREMULTIPLIED],
                               tooltip="How the file holds colour. Files of Strata say so; others are taken as "
                                       "straight. Premultiplied colour is divided by its alpha."),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The colour, straight."),
                io.Mask.Output("alpha", tooltip="White is foreground; all white if the file has no alpha."),
                io.Audio.Output("audio", tooltip="The first sound track; of no length if there is none."),
                io.Float.Output("frame_rate", tooltip="Frames a second, for Save Alpha Video or Create Video."),
                io.String.Output("timecode", tooltip="Of the first frame; empty if the file has none."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str, **kwargs):
        # Its own check, since files made by this very graph are not in the list yet.
        try:
            stored_path(file)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **kwargs):
        return fingerprint(file)

    @classmethod
    def execute(cls, file: str, alpha_mode: str) -> io.NodeOutput:
        clip = read_alpha_video(stored_path(file), None if alpha_mode == AS_STATED else alpha_mode,
                                after_frame=throw_exception_if_processing_interrupted)
        frames, height, width, _ = clip.images.shape
        kind = "no alpha" if clip.stated is None else f"alpha {clip.stated or 'of unknown kind, taken as straight'}"
        if clip.stated is not None and alpha_mode != AS_STATED:
            kind = f"alpha taken as {alpha_mode}"
        said = f"{frames} frames of {width}x{height} at {clip.rate} a second, {kind}"
        return io.NodeOutput(clip.images, clip.alpha, audio_of(clip.sound), float(clip.rate), str(clip.timecode or ""),
                             ui=say(cls, said))
