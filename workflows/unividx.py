"""The graphs of UniVidX's families, intrinsic and alpha."""

from __future__ import annotations

from graph import Graph, Handle
from parts import (
    ALPHA_SIZE,
    INTRINSIC_SIZE,
    NEGATIVE,
    Models,
    decode,
    layers,
    no_prompt,
    prompt,
    read_clip,
    sample,
    write_clips,
)


def inverse_rendering(g: Graph) -> None:
    m = Models(g, "intrinsic", "## A shot into its layers (R2AIN)\n\nFrom your plate: **albedo**, the colour of things "
               "without light; **irradiance**, the light without colour; **normal**, the way every surface faces.\n\n"
               f"The plate itself is given, so it comes out untouched. No prompt is needed. {INTRINSIC_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    made = sample(g, m, "all layers together", asked, seed=1, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "inverse_rendering", {name: shown[name] for name in ("albedo", "irradiance", "normal")},
                plate["fps"])


def text_to_intrinsic(g: Graph) -> None:
    m = Models(g, "intrinsic", "## A prompt into a shot with all its layers (t2RAIN)\n\nNothing is connected, so the "
               "picture, its albedo, its irradiance and its normals are all made, and they belong together.\n\nSize "
               f"and length stand on **Strata Condition Mask**. {INTRINSIC_SIZE}")
    g.group("2. What you want to see", "green")
    text = prompt(g, m, "A slow camera move through a sunlit room with a wooden table, a green chair and a red vase of "
                  "flowers by the window, soft shadows on the wall.", negative=NEGATIVE)
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", "nothing is given")
    g.column()
    made = sample(g, m, "all layers together", asked, seed=7, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "text_to_intrinsic", {name: shown[name] for name in ("rgb", "albedo", "irradiance", "normal")}, 15)


def relight_edited_irradiance_ain2r(g: Graph) -> None:
    m = Models(g, "intrinsic", "## Relight a shot by editing its light (R2AIN, then AIN2R)\n\n**First pass**: your "
               "plate into albedo, irradiance and normal.\n\n**Edit**: the irradiance is the light alone. Darken it, "
               "tint it, paint on it, with any image nodes; here it is dimmed and hardened.\n\n**Second pass**: "
               "albedo and normal as they were and the new light are given, and the picture is made anew. "
               f"{INTRINSIC_SIZE}")
    plate, text, first = first_pass(g, m)
    g.group("4. Edit the light", "green")
    shown = decode(g, m, first["LATENT"])
    dimmed = g.add("AdjustBrightness", title="Dim the light", images=shown["irradiance"], factor=0.7)
    edited = g.add("AdjustContrast", title="Harden it", images=dimmed["images"], factor=1.3)
    g.add("PreviewImage", title="The new light", room=240, images=edited["images"])
    g.group("5. Second pass: the picture", "amber")
    again = layers(g, m, "intrinsic", "the same shot in the new light", albedo=shown["albedo"],
                   irradiance=edited["images"], normal=shown["normal"])
    g.column()
    second = sample(g, m, "second pass", again, seed=2, **text)
    g.group("6. Look at it and save it", "violet")
    relit = decode(g, m, second["LATENT"])
    write_clips(g, "relight_ain2r", {"light": edited["images"], "relit": relit["rgb"]}, plate["fps"])


def relight_edited_irradiance_in2ra(g: Graph) -> None:
    m = Models(g, "intrinsic", "## New light and new materials (R2AIN, then IN2RA)\n\nAs the other relighting graph, "
               "but the second pass is given the new light and the normals only: the prompt says what things are made "
               "of, and picture **and** albedo are made anew in the shape of your shot.\n\nThe normals go over as a "
               "latent, straight from the first pass: a layer may be connected as pictures or as a latent. "
               f"{INTRINSIC_SIZE}")
    plate, _, first = first_pass(g, m)
    g.group("4. Edit the light", "green")
    shown = decode(g, m, first["LATENT"])
    warm = g.add("EmptyImage", title="A warm colour", width=64, height=64, batch_size=1, color=0xFFC890)
    edited = g.add("ImageBlend", title="Tint the light", image1=shown["irradiance"], image2=warm["IMAGE"],
                   blend_factor=0.8, blend_mode="multiply")
    g.add("PreviewImage", title="The new light", room=240, images=edited["IMAGE"])
    g.group("5. Second pass: picture and albedo", "amber")
    again = layers(g, m, "intrinsic", "the same shapes in the new light", irradiance=edited["IMAGE"],
                   normal=first["LATENT"])
    g.column()
    text = prompt(g, m, "A person in a dark blue coat on wet marble steps at dusk, in the warm light of street lamps.",
                  negative=NEGATIVE)
    second = sample(g, m, "second pass", again, seed=2, **text)
    g.group("6. Look at them and save them", "violet")
    relit = decode(g, m, second["LATENT"])
    write_clips(g, "relight_in2ra", {"relit": relit["rgb"], "albedo": relit["albedo"]}, plate["fps"])


def first_pass(g: Graph, m: Models) -> tuple[Handle, dict, Handle]:
    """The plate's frames, the empty prompt, and the sampler that makes the plate's layers."""
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. First pass: the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    first = sample(g, m, "first pass", asked, seed=1, **text)
    return plate, text, first


def matting(g: Graph) -> None:
    m = Models(g, "alpha", "## Cut the foreground out (R2PFB)\n\nFrom your plate: **alpha**, what is foreground and "
               "how much; **fg**, the foreground with nothing behind it; **bg**, the scene as if it were not there.\n\n"
               "This graph uses ComfyUI's own **KSampler**; every sampler and scheduler works. With the empty prompt "
               f"leave its cfg at 1. {ALPHA_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)["positive"]
    made = g.add("KSampler", title="KSampler: all layers together", wide=380, room=260, model=m.model, positive=text,
                 negative=text, latent_image=asked["LATENT"], seed=1, steps=50, cfg=1.0, sampler_name="euler",
                 scheduler="simple", denoise=1.0)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "matting", {name: shown[name] for name in ("alpha", "fg", "bg")}, plate["fps"])


def replace_background_pb2rf(g: Graph) -> None:
    m = Models(g, "alpha", "## A new background, and a foreground that fits it (PB2RF)\n\nGiven: the **alpha** of your "
               "plate (the matting graph makes one) and a new background. The foreground is made anew in that shape, "
               "together with the finished composite. The prompt says who or what "
               f"it is.\n\nBoth clips need one size and one length. {ALPHA_SIZE}")
    g.group("2. Your clips", "green")
    alpha = read_clip(g, "person_alpha.mp4", "The alpha of your plate")
    background = read_clip(g, "new_background.mp4", "The new background")
    g.group("3. Make composite and foreground", "amber")
    asked = layers(g, m, "alpha", alpha=alpha["images"], bg=background["images"])
    g.column()
    text = prompt(g, m, "A young woman with long brown hair and glasses in a white blouse on a wide stone staircase.")
    made = sample(g, m, "both together", asked, seed=3, **text)
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "replace_background", {"composite": shown["rgb"], "fg": shown["fg"]}, alpha["fps"])


def replace_background_rpf2b(g: Graph) -> None:
    m = Models(g, "alpha", "## The clean background behind a foreground (RPF2B)\n\nGiven: your plate, its **alpha** "
               "and its **foreground** (the matting graph makes both, a keyer may do better). What the foreground "
               "hides is made up: a clean plate to put something else in front of.\n\nAll clips need one size and one "
               f"length. {ALPHA_SIZE}")
    g.group("2. Your clips", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    alpha = read_clip(g, "person_alpha.mp4", "Its alpha")
    g.column()
    foreground = read_clip(g, "person_fg.mp4", "Its foreground")
    g.group("3. Make the background", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"], alpha=alpha["images"], fg=foreground["images"])
    g.column()
    text = no_prompt(g, m)
    made = sample(g, m, "what was hidden", asked, seed=4, **text)
    g.group("4. Look at it and save it", "violet")
    shown = decode(g, m, made["LATENT"])
    write_clips(g, "clean_plate", {"bg": shown["bg"]}, plate["fps"])


def text_to_rgba(g: Graph) -> None:
    m = Models(g, "alpha", "## A prompt into a foreground with alpha (t2RPFB)\n\nNothing is connected: the picture, "
               "its alpha, its foreground and its background are all made. The foreground is saved as pictures with "
               "transparency (PNG, straight alpha), one per frame.\n\nThis graph uses ComfyUI's "
               f"**SamplerCustomAdvanced** and its small helpers, for those who like to see every step. {ALPHA_SIZE}")
    g.group("2. What you want to see", "green")
    text = prompt(g, m, "A woman with a red umbrella walks along a rainy street at night, neon signs behind her.")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "alpha", "nothing is given")
    g.column()
    noise = g.add("RandomNoise", title="Seed", noise_seed=5)
    guider = g.add("BasicGuider", title="Follow the prompt", model=m.model, conditioning=text["positive"])
    stepper = g.add("KSamplerSelect", title="How to step", sampler_name="euler")
    sigmas = g.add("BasicScheduler", title="How many steps", model=m.model, scheduler="simple", steps=50, denoise=1.0)
    g.column()
    made = g.add("SamplerCustomAdvanced", title="SamplerCustomAdvanced: all layers together", wide=360, room=300,
                 noise=noise["NOISE"], guider=guider["GUIDER"], sampler=stepper["SAMPLER"], sigmas=sigmas["SIGMAS"],
                 latent_image=asked["LATENT"])
    g.group("4. Look at them and save them", "violet")
    shown = decode(g, m, made["output"])
    # Join Image with Alpha takes a mask of what is transparent, the other way round than an alpha.
    clear = g.add("InvertMask", title="What is transparent", wide=240, mask=shown["alpha_mask"])
    cut = g.add("JoinImageWithAlpha", title="Foreground with alpha", wide=240, image=shown["fg"], alpha=clear["MASK"])
    g.column()
    g.add("SaveImage", title="Save RGBA pictures", wide=340, room=260, images=cut["IMAGE"],
          filename_prefix="strata/text_to_rgba/fg_rgba")
    composite = g.add("CreateVideo", title="rgb as a clip", wide=340, images=shown["rgb"], fps=15, bit_depth=8)
    g.add("SaveVideo", title="Save rgb", wide=340, room=230, video=composite["VIDEO"],
          filename_prefix="strata/text_to_rgba/rgb")


def adapter_strength(g: Graph) -> None:
    m = Models(g, "intrinsic", "## A layer's adapters, turned up or down (R2AIN)\n\nThe same shot and seed twice: as "
               "trained, and with the albedo's adapters at 0.7. **Gated LoRA** changes one layer, or all of them; "
               "chain it for more. Weaker, a layer keeps more of what the plain Wan makes; stronger, it goes further "
               "than it was trained to. The wipes show what that does to the albedo, and to the layer beside it. "
               f"{INTRINSIC_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    weaker = g.add("StrataGatedLoRA", title="Strata Gated LoRA: less of the albedo's", wide=400, model=m.model,
                   layer="albedo", strength=0.7)
    g.column()
    text = no_prompt(g, m)
    made, other = (sample(g, m, how, asked, model=model, seed=1, **text)
                   for how, model in (("as trained", m.model), ("albedo at 0.7", weaker["MODEL"])))
    g.group("4. Compare them", "violet")
    first, second = (decode(g, m, sampled["LATENT"]) for sampled in (made, other))
    wipes = {name: g.add("StrataWipe", title=f"Strata Wipe: {name}, as trained | changed", wide=300, a=first[name],
                         b=second[name])["IMAGE"] for name in ("albedo", "irradiance")}
    write_clips(g, "adapter_strength", wipes, plate["fps"])


GRAPHS = {describe.__name__: describe for describe in (
    inverse_rendering, text_to_intrinsic, relight_edited_irradiance_ain2r, relight_edited_irradiance_in2ra, matting,
    replace_background_pb2rf, replace_background_rpf2b, text_to_rgba, adapter_strength)}
