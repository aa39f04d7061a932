"""The graphs with words: Uni-ViGU alone, and beside UniVidX's layers."""

from __future__ import annotations

from graph import Graph, Handle
from parts import NEGATIVE, Models, decode, layers, no_prompt, prompt, read_clip, sample, write_clips, write_text

SIZE = "Uni-ViGU knows 81 frames of 832x480 and is run with 100 steps."
GIVEN_WORDS = "video from these words"


def captioned(g: Graph, m: Models, images: tuple[int, int], model: tuple[int, int]) -> Handle:
    """Strata Caption on a clip."""
    return g.add("StrataCaption", title="Strata Caption: what the clip shows", wide=380, room=200, model=model,
                 vae=m.vae, images=images, seed=1)


def caption(g: Graph) -> None:
    m = Models(g, "vigu", "## What a clip shows, in words\n\n**Strata Caption** writes a caption of your clip; it "
               "needs no text encoder. The text grows on the node while it is made. Another seed gives other words.\n\n"
               f"{SIZE} Your clip is scaled and cut to that; of a longer one frames are taken evenly, or one stretch "
               "after the other is captioned (long_clips, among the advanced inputs).", text=False)
    g.group("2. Your clip", "green")
    clip = read_clip(g, "person.mp4", "Your clip")
    g.group("3. Caption it", "amber")
    made = captioned(g, m, clip["images"], m.model)
    g.group("4. Read it and save it", "violet")
    write_text(g, "caption", "caption", made["caption"], "The caption")


def caption_edited_to_video(g: Graph) -> None:
    m = Models(g, "vigu", "## Change the words, and make the clip anew\n\nYour clip is captioned, ComfyUI's own text "
               "nodes edit the caption, and **Strata Video + Caption** makes a new clip *from these words*, as long as "
               "yours. Both are saved side by side: yours left, the new one right.\n\nWords that the caption does "
               "not hold are not replaced: read the caption first. All of it has to fit into 256 tokens.\n\n" + SIZE)
    g.group("2. Your clip", "green")
    clip = read_clip(g, "person.mp4", "Your clip")
    size = g.add("GetImageSize", title="Its length", room=60, image=clip["images"])
    g.group("3. Caption it", "amber")
    made = captioned(g, m, clip["images"], m.model)
    g.add("PreviewAny", title="The caption", wide=380, room=190, source=made["caption"])
    g.group("4. Edit the words", "green")
    swapped = g.add("StringReplace", title="Other words", wide=340, room=150, string=made["caption"], find="woman",
                    replace="robot")
    edited = g.add("StringConcatenate", title="One more sentence", wide=340, room=110, string_a=swapped["STRING"],
                   string_b="Snow falls behind the windows.", delimiter=" ")
    g.add("PreviewAny", title="The new words", wide=340, room=190, source=edited["STRING"])
    g.group("5. Make the video", "amber")
    new = g.add("StrataVideoCaption", title="Strata Video + Caption: from these words", wide=380, room=290,
                model=m.model, clip=m.clip, vae=m.vae, prompt=edited["STRING"], mode=GIVEN_WORDS,
                length=size["batch_size"], seed=1)
    g.group("6. Look at both and save them", "violet")
    # Two of one size have an even width together, as video files want it.
    size = g.add("GetImageSize", title="Its size", wide=260, room=60, image=new["video"])
    yours = g.add("ImageScale", title="Yours in that size", wide=260, image=clip["images"], upscale_method="lanczos",
                  width=size["width"], height=size["height"], crop="center")
    both = g.add("ImageStitch", title="Yours left, the new one right", wide=260, image1=yours["IMAGE"],
                 direction="right", match_image_size=False, image2=new["video"])
    write_clips(g, "new_words", {"video": new["video"], "beside": both["IMAGE"]}, clip["fps"])


def text_to_video_with_caption(g: Graph) -> None:
    m = Models(g, "vigu", "## A video, and what it shows in words\n\n**Strata Video + Caption** makes a video of your "
               "prompt and, beside it, a caption that says more than the prompt does. Both are made together, step by "
               f"step. It steers away from the empty prompt; there is no negative one.\n\n{SIZE}")
    g.group("2. Make the video and its caption", "amber")
    made = g.add("StrataVideoCaption", title="Strata Video + Caption: both together", wide=400, room=350, model=m.model,
                 clip=m.clip, vae=m.vae, prompt="A dog runs along a beach at sunrise, waves roll in behind it.",
                 seed=1)
    g.group("3. Look at them and save them", "violet")
    write_text(g, "with_caption", "caption", made["caption"], "What it shows")
    write_clips(g, "with_caption", {"video": made["video"]}, 16)


def relight_foreground_with_caption(g: Graph) -> None:
    m = Models(g, ("intrinsic", "alpha", "vigu"), "## New light on the foreground alone (R2PFB, R2AIN, IN2RA, caption)"
               "\n\n**Alpha** cuts the foreground out, **intrinsic** takes its light apart and makes the shot anew in "
               "other light, a **caption** of the shot is the prompt for that, and the foreground in its new light is "
               "put over the plate.\n\n**One loaded model for two families**: intrinsic and alpha both ride on the "
               "Wan 2.1 14B that is loaded once; each Load Layers adds only its adapters. The caption's layers were "
               "trained with a Wan 1.3B of their own, so that one is loaded beside it.", height=560)
    g.group("2. Your plate, and what it shows", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    g.column()
    words = captioned(g, m, plate["images"], m.of["vigu"])
    g.add("PreviewAny", title="The caption", wide=380, room=190, source=words["caption"])
    g.group("3. Cut the foreground out", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"])
    g.column()
    empty = no_prompt(g, m)
    cut = sample(g, m, "alpha", asked, model=m.of["alpha"], seed=1, **empty)
    g.group("4. Take its light apart", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    apart = sample(g, m, "the layers", asked, model=m.of["intrinsic"], seed=1, **empty)
    g.group("5. Edit the light", "green")
    shown = decode(g, m, apart["LATENT"])
    blue = g.add("EmptyImage", title="A cold colour", width=64, height=64, batch_size=1, color=0x90B4FF)
    edited = g.add("ImageBlend", title="Tint the light", image1=shown["irradiance"], image2=blue["IMAGE"],
                   blend_factor=0.8, blend_mode="multiply")
    g.add("PreviewImage", title="The new light", room=240, images=edited["IMAGE"])
    g.group("6. The shot in the new light", "amber")
    asked = layers(g, m, "intrinsic", "new light, same shapes", irradiance=edited["IMAGE"], normal=apart["LATENT"])
    g.column()
    text = prompt(g, m, words["caption"], "What the caption says", negative=NEGATIVE)
    relit = sample(g, m, "the new picture", asked, model=m.of["intrinsic"], seed=2, **text)
    g.group("7. Over the plate, and save", "violet")
    alpha = decode(g, m, cut["LATENT"])
    picture = decode(g, m, relit["LATENT"])
    joined = g.add("ImageCompositeMasked", title="Relit, over the plate", wide=260,
                   destination=plate["images"], source=picture["rgb"], mask=alpha["alpha_mask"])
    write_clips(g, "relight_foreground", {"relit": joined["IMAGE"], "alpha": alpha["alpha"]}, plate["fps"])


GRAPHS = {describe.__name__: describe for describe in (
    caption, caption_edited_to_video, text_to_video_with_caption, relight_foreground_with_caption)}
