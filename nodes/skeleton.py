"""Strata Encode Skeleton and Decode Skeleton: keypoints of people into drawings, and back."""

from __future__ import annotations

from comfy_api.latest import io

from ..imaging.encodings.skeleton import draw_skeletons, joints_to_pose_json, pose_json_to_joints, read_joints

Keypoints = io.Custom("POSE_KEYPOINT")


class EncodeSkeleton(io.ComfyNode):
    """Keypoints into a drawing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataEncodeSkeleton",
            display_name="Strata Encode Skeleton",
            category="Strata/layers",
            description="Draws the 18 body joints of people as OpenPose does; face, hands and feet are left out.",
            search_aliases=["openpose", "dwpose", "sdpose", "draw keypoints"],
            inputs=[
                Keypoints.Input("keypoints", tooltip="From SDPose Keypoint Extractor, DWPose or OpenPose nodes."),
                io.Float.Input("confidence", default=0.3, min=0.0, max=1.0, step=0.01,
                               tooltip="Joints that the detector was less sure of are left out. 0.3 is what SDPose "
                                       "itself draws."),
            ],
            outputs=[io.Image.Output("skeleton_layer", tooltip="For Condition Mask's skeleton.")],
        )

    @classmethod
    def execute(cls, keypoints, confidence: float) -> io.NodeOutput:
        joints, visible, height, width = pose_json_to_joints(keypoints, confidence)
        if not visible.any():
            raise ValueError(f"The poses show no joint with a confidence of {confidence:g} or more in any frame, but "
                             "one is needed to draw; lower the confidence, or check the detector's input.")
        return io.NodeOutput(draw_skeletons(joints, visible, height, width))


class DecodeSkeleton(io.ComfyNode):
    """A drawing into keypoints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StrataDecodeSkeleton",
            display_name="Strata Decode Skeleton",
            category="Strata/layers",
            description="Reads the joints of ONE person from a skeleton layer, as keypoints for pose nodes.",
            search_aliases=["openpose", "pose keypoint", "json"],
            inputs=[io.Image.Input("skeleton_layer", tooltip="From Strata Decode Layers or Encode Skeleton, not "
                                                             "resized.")],
            outputs=[Keypoints.Output("keypoints", tooltip="One person a frame, in pixels; joints that are not seen "
                                                           "have confidence 0.")],
        )

    @classmethod
    def execute(cls, skeleton_layer) -> io.NodeOutput:
        joints, visible = read_joints(skeleton_layer)
        return io.NodeOutput(joints_to_pose_json(joints, visible, *skeleton_layer.shape[1:3]))
