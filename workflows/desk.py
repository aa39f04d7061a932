"""The graphs of the compositor's desk: from layers to what a studio takes. Those without a model work on any layers."""

from __future__ import annotations

from graph import Graph
from parts import ALPHA_SIZE, INTRINSIC_SIZE, Models, decode, layers, no_prompt, read_clip, sample, view, write_clips

NO_MODEL = "No model is needed: it works on any layers, ours or others'."


def _read_me(g: Graph, text: str, height: int = 330) -> None:
    g.group("1. Read me")
    g.note(f"{text}\n\n**Clips**: copy workflows/assets of this pack into ComfyUI's input folder, or choose your own.",
           wide=380, height=height)


def _sun_and_sky(g: Graph, sky: tuple[int, int], **sun) -> tuple[int, int]:
    """A directional light, and what the sky of a picture adds to it."""
    key = g.add("StrataLight", title="Strata Light: the sun", wide=320, kind="directional", **sun)["lights"]
    return g.add("StrataEnvironmentLight", title="Strata Environment Light: the sky", wide=320, panorama=sky,
                 lights=key, strength=0.5)["lights"]


def relight_layers(g: Graph) -> None:
    _read_me(g, "## New light by the layers alone\n\n**Rebuild** fits albedo x irradiance to the plate and keeps what "
                "is left over, highlights above all. **Relight** lights the normals by the lamps you set, in linear "
                f"light, and adds that back. The result goes out as a wipe to show and as EXR to comp.\n\n{NO_MODEL}")
    g.group("2. The shot and its layers", "green")
    plate = read_clip(g, "room.mp4", "The plate")
    albedo = read_clip(g, "room_albedo.mp4", "Its albedo")
    g.column()
    irradiance = read_clip(g, "room_irradiance.mp4", "Its irradiance")
    normal = read_clip(g, "room_normal.mp4", "Its normals")
    g.group("3. Fit, and set the light", "amber")
    clean = g.add("StrataNormalMap", title="Strata Normal Map: unit length again", wide=320, normal=normal["images"])
    fit = g.add("StrataRebuild", title="Strata Rebuild", wide=320, plate=plate["images"], albedo=albedo["images"],
                irradiance=irradiance["images"])
    g.add("PreviewAny", title="How well they fit", wide=320, room=120, source=fit["report"])
    g.column()
    sky = g.add("ImageScale", title="The sky, twice as wide as high", wide=320, image=plate["images"],
                upscale_method="area", width=128, height=64, crop="disabled")
    lights = _sun_and_sky(g, sky["IMAGE"], kind__azimuth=60.0, kind__elevation=25.0, temperature=3200.0, strength=0.6)
    g.group("4. Relight", "amber")
    lit = g.add("StrataRelight", title="Strata Relight", wide=340, normal=clean["normal"], lights=lights,
                mode="albedo x light", mode__albedo=fit["albedo"], mode__residual=fit["residual"],
                plate=plate["images"], specular=0.04)
    g.group("5. Look, show, hand over", "violet")
    view(g, plate["fps"], rgb=plate["images"], albedo=fit["albedo"], irradiance=lit["irradiance"],
            normal=clean["normal"], pictures__picture0=lit["relit"])
    g.column()
    wipe = g.add("StrataWipe", title="Strata Wipe: before | after", wide=260, a=plate["images"], b=lit["relit"])
    g.add("StrataSaveLayersEXR", title="Strata Save Layers EXR", wide=340, filename_prefix="strata/relight_layers/shot",
          rgb=lit["relit"], albedo=fit["albedo"], irradiance=lit["irradiance"], normal=clean["normal"],
          residual=fit["residual"], frame_rate=plate["fps"])
    write_clips(g, "relight_layers", {"wipe": wipe["IMAGE"]}, plate["fps"])


def new_background(g: Graph) -> None:
    _read_me(g, "## A clean cut on a new background\n\nThe matte is cleaned in its soft band, the foreground loses the "
                "light of its old background (**Decontaminate** needs plate, alpha and the clean background), and is "
                "laid over the new one in linear light. The foreground goes out as ProRes 4444 with alpha, the comp "
                f"as EXR with its layers.\n\n{NO_MODEL}")
    g.group("2. The plate and its layers", "green")
    plate = read_clip(g, "person.mp4", "The plate")
    matte = read_clip(g, "person_alpha.mp4", "Its alpha")
    g.column()
    fg = read_clip(g, "person_fg.mp4", "Its foreground, on green")
    old = read_clip(g, "person_bg.mp4", "Its clean background")
    g.column()
    new = read_clip(g, "new_background.mp4", "The new background")
    g.group("3. Clean edges", "amber")
    mask = g.add("ImageToMask", title="The alpha as a mask", wide=260, image=matte["images"], channel="red")
    alpha = g.add("StrataRefineMatte", title="Strata Refine Matte", wide=320, alpha=mask["MASK"], black=0.02,
                  white=0.98, specks=4)
    spill = g.add("StrataDespill", title="Strata Despill: no green", wide=320, foreground=fg["images"])
    g.column()
    clean = g.add("StrataDecontaminate", title="Strata Decontaminate", wide=340, plate=plate["images"],
                  alpha=alpha["alpha"], background=old["images"], foreground=spill["foreground"])
    g.group("4. Composite", "amber")
    layer = g.add("StrataCompLayer", title="Strata Comp Layer", wide=320, foreground=clean["foreground"],
                  alpha=alpha["alpha"])
    comp = g.add("StrataLayerCompositor", title="Strata Layer Compositor", wide=320, room=20, background=new["images"],
                 layers__layer0=layer["layer"])
    back = g.add("StrataLayerCompositor", title="Rebuilt: the residual is near black", wide=320, room=20,
                 background=old["images"], original=plate["images"], layers__layer0=layer["layer"])
    g.group("5. Look, show, hand over", "violet")
    view(g, plate["fps"], rgb=plate["images"], alpha=alpha["alpha"], fg=clean["foreground"], bg=old["images"],
            pictures__picture0=comp["plate"], pictures__picture1=back["residual"])
    g.column()
    g.add("StrataSaveAlphaVideo", title="Strata Save Alpha Video: ProRes 4444", wide=340,
          filename_prefix="strata/new_background/fg", images=clean["foreground"], alpha=alpha["alpha"],
          frame_rate=plate["fps"])
    g.add("StrataSaveLayersEXR", title="Strata Save Layers EXR", wide=340, filename_prefix="strata/new_background/comp",
          rgb=comp["plate"], alpha=alpha["alpha"], fg=clean["foreground"], bg=new["images"], frame_rate=plate["fps"])
    write_clips(g, "new_background", {"comp": comp["plate"]}, plate["fps"])


def small_layers_at_plate_size(g: Graph) -> None:
    _read_me(g, "## Small layers at the plate's size\n\nA model works at 640x480, the plate is 2K or 4K. **Guided "
                "Upsample** enlarges layers along the plate's own edges: albedo, irradiance, normals (unit length "
                "again), and an alpha likewise. They go out as 16-bit PNG, a folder for each, and as a sheet to look "
                "at.\n\n" + NO_MODEL)
    g.group("2. The plate, and layers half as large", "green")
    plate = read_clip(g, "room.mp4", "The plate")
    albedo = read_clip(g, "room_albedo.mp4", "Its albedo")
    g.column()
    irradiance = read_clip(g, "room_irradiance.mp4", "Its irradiance")
    normal = read_clip(g, "room_normal.mp4", "Its normals")
    g.column()
    halves = {name: g.add("ImageScaleBy", title=f"{name}, as a model would make it", wide=260, image=clip["images"],
                          upscale_method="area", scale_by=0.5)["IMAGE"]
              for name, clip in {"albedo": albedo, "irradiance": irradiance, "normal": normal}.items()}
    g.group("3. Enlarge them", "amber")
    large = g.add("StrataGuidedUpsample", title="Strata Guided Upsample", wide=340, plate=plate["images"], **halves)
    g.add("PreviewAny", title="What they differ by, made small again", wide=340, room=120, source=large["report"])
    g.group("4. Look, and hand over", "violet")
    made = {name: large[name] for name in halves}
    sheet = g.add("StrataContactSheet", title="Strata Contact Sheet", wide=300, rgb=plate["images"], **made)
    g.add("SaveImage", title="Save the sheet", wide=340, room=260, images=sheet["IMAGE"],
          filename_prefix="strata/plate_size/sheet")
    g.column()
    g.add("StrataSaveLayers", title="Strata Save Layers: 16-bit PNG", wide=340,
          filename_prefix="strata/plate_size/shot", rgb=plate["images"], **made)


def exr_there_and_back(g: Graph) -> None:
    _read_me(g, "## EXR there and back, and highlights through a model\n\nA plate and its layers go into one EXR file "
                "a frame, in ACEScg, and come back from it by their names. Made twice as bright the plate has "
                "values above 1, which no model takes: **Compress Highlights** brings them below, reversibly; put "
                "*Condition Mask* and the sampler where the note stands; **Restore Highlights** gives the result the "
                "plate's own.\n\n" + NO_MODEL, height=400)
    g.group("2. A plate and its layers", "green")
    plate = read_clip(g, "room.mp4", "The plate")
    normal = read_clip(g, "room_normal.mp4", "Its normals")
    g.group("3. Into EXR, in ACEScg", "amber")
    aces = g.add("StrataColourSpace", title="Strata Colour Space: sRGB to ACEScg", wide=340, image=plate["images"],
                 spaces="built in", spaces__source="sRGB", spaces__target="ACEScg (AP1)")
    saved = g.add("StrataSaveLayersEXR", title="Strata Save Layers EXR", wide=340, filename_prefix="strata/exr/plate",
                  rgb=aces["image"], normal=normal["images"], colours="ACEScg (AP1)", frame_rate=plate["fps"],
                  timecode="01:00:00:00")
    g.group("4. And back", "amber")
    back = g.add("StrataLoadLayersEXR", title="Strata Load Layers EXR", wide=340, folder=saved["folder"],
                 colours="linear, as stored")
    g.add("PreviewAny", title="What the files hold", wide=340, room=140, source=back["contents"])
    linear = g.add("StrataColourSpace", title="Strata Colour Space: ACEScg to linear Rec.709", wide=340,
                   image=back["rgb"], spaces="built in", spaces__source="ACEScg (AP1)",
                   spaces__target="linear Rec.709")
    g.group("5. Highlights through 0..1", "amber")
    bright = g.add("StrataCompLayer", title="Strata Comp Layer: the plate, added to itself", wide=320,
                   foreground=linear["image"], operator="plus")
    hdr = g.add("StrataLayerCompositor", title="Strata Layer Compositor: twice as bright", wide=320, room=20,
                background=linear["image"], colours="linear Rec.709", layers__layer0=bright["layer"])
    low = g.add("StrataCompressHighlights", title="Strata Compress Highlights", wide=320, plate=hdr["plate"],
                colours="linear Rec.709")
    high = g.add("StrataRestoreHighlights", title="Strata Restore Highlights", wide=320, layer=low["compressed"],
                 plate=hdr["plate"], colours="linear Rec.709")
    shown = g.add("StrataColourSpace", title="Strata Colour Space: to sRGB, to look at", wide=340, image=high["layer"],
                  spaces="built in", spaces__source="linear Rec.709", spaces__target="sRGB")
    g.group("6. Look at it", "violet")
    view(g, plate["fps"], rgb=plate["images"], normal=back["normal"], pictures__picture0=low["compressed"],
            pictures__picture1=shown["image"])


def alpha_video(g: Graph) -> None:
    _read_me(g, "## A clip with alpha, in and out\n\n**Load Alpha Video** brings the alpha of VP9, ProRes 4444 and "
                "FFV1 back, and straight colour. The clip is laid over a background twice, smaller behind; beside that "
                "its edge is drawn in by half a pixel, and it goes out with its alpha, as VP9 for the web.\n\n"
             + NO_MODEL)
    g.group("2. A clip with alpha, and a background", "green")
    clip = g.add("StrataLoadAlphaVideo", title="Strata Load Alpha Video", wide=320, room=200, file="person_rgba.webm")
    g.column()
    new = read_clip(g, "new_background.mp4", "The background")
    g.group("3. Stack it", "amber")
    front = g.add("StrataCompLayer", title="Strata Comp Layer: in front", wide=320, foreground=clip["images"],
                  alpha=clip["alpha"], x=40.0)
    behind = g.add("StrataCompLayer", title="Strata Comp Layer: smaller, behind", wide=320, foreground=clip["images"],
                   alpha=clip["alpha"], x=-70.0, y=20.0, scale=0.7, opacity=0.8)
    g.column()
    comp = g.add("StrataLayerCompositor", title="Strata Layer Compositor", wide=320, room=20, background=new["images"],
                 layers__layer0=behind["layer"], layers__layer1=front["layer"])
    matte = g.add("StrataRefineMatte", title="Strata Refine Matte: half a pixel in", wide=320, alpha=clip["alpha"],
                  grow=-0.5)
    g.group("4. Look, and hand over", "violet")
    g.add("StrataSaveAlphaVideo", title="Strata Save Alpha Video: VP9", wide=340, room=260,
          filename_prefix="strata/alpha_video/person", images=clip["images"], alpha=matte["alpha"], codec="vp9",
          frame_rate=clip["frame_rate"], timecode=clip["timecode"])
    g.column()
    view(g, clip["frame_rate"], rgb=comp["plate"], fg=clip["images"], alpha=matte["alpha"])
    write_clips(g, "alpha_video", {"comp": comp["plate"]}, clip["frame_rate"])


def matting_to_exr(g: Graph) -> None:
    m = Models(g, "alpha", "## From the plate to a comp on a new background, in EXR and ProRes (R2PFB)\n\nThe model "
               "makes alpha, foreground and clean background; the desk's nodes take the old light off the edges, lay "
               f"the foreground over the new background and hand all over. {ALPHA_SIZE}")
    g.group("2. Your plate, and the new background", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    new = read_clip(g, "new_background.mp4", "The new background")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "alpha", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    made = sample(g, m, "the layers", asked, seed=1, **text)
    g.group("4. Clean edges, new background", "amber")
    shown = decode(g, m, made["LATENT"])
    alpha = g.add("StrataRefineMatte", title="Strata Refine Matte", wide=320, alpha=shown["alpha_mask"], black=0.02,
                  white=0.98)
    clean = g.add("StrataDecontaminate", title="Strata Decontaminate", wide=340, plate=plate["images"],
                  alpha=alpha["alpha"], background=shown["bg"])
    g.column()
    layer = g.add("StrataCompLayer", title="Strata Comp Layer", wide=320, foreground=clean["foreground"],
                  alpha=alpha["alpha"])
    comp = g.add("StrataLayerCompositor", title="Strata Layer Compositor", wide=320, room=20, background=new["images"],
                 layers__layer0=layer["layer"])
    g.group("5. Look, and hand over", "violet")
    view(g, plate["fps"], rgb=plate["images"], alpha=alpha["alpha"], fg=clean["foreground"], bg=shown["bg"],
            pictures__picture0=comp["plate"])
    g.column()
    g.add("StrataSaveAlphaVideo", title="Strata Save Alpha Video: ProRes 4444", wide=340,
          filename_prefix="strata/matting_to_exr/fg", images=clean["foreground"], alpha=alpha["alpha"],
          frame_rate=plate["fps"])
    g.add("StrataSaveLayersEXR", title="Strata Save Layers EXR", wide=340, filename_prefix="strata/matting_to_exr/comp",
          rgb=comp["plate"], alpha=alpha["alpha"], fg=clean["foreground"], bg=shown["bg"], frame_rate=plate["fps"])


def day_to_night(g: Graph) -> None:
    m = Models(g, "intrinsic", "## Day to night (R2AIN, then light)\n\nThe model takes the light off your plate; a "
               "cold moon from behind, a little of the sky and a trace of the day's own light go back on, three stops "
               f"down. What Rebuild has left over, the highlights, stays dim. {INTRINSIC_SIZE}")
    g.group("2. Your plate", "green")
    plate = read_clip(g, "room.mp4", "Your plate")
    g.group("3. Make the layers", "amber")
    asked = layers(g, m, "intrinsic", rgb=plate["images"])
    g.column()
    text = no_prompt(g, m)
    made = sample(g, m, "the layers", asked, seed=1, **text)
    g.group("4. The night's light", "amber")
    shown = decode(g, m, made["LATENT"])
    fit = g.add("StrataRebuild", title="Strata Rebuild", wide=320, plate=plate["images"], albedo=shown["albedo"],
                irradiance=shown["irradiance"])
    g.column()
    sky = g.add("EmptyImage", title="A night sky", width=128, height=64, batch_size=1, color=0x203050)
    lights = _sun_and_sky(g, sky["IMAGE"], kind__azimuth=140.0, kind__elevation=50.0, temperature=9000.0, exposure=-2.0)
    lit = g.add("StrataRelight", title="Strata Relight", wide=340, normal=shown["normal"], lights=lights,
                mode="albedo x light", mode__albedo=fit["albedo"], mode__residual=fit["residual"],
                mode__residual_gain=0.1, plate=plate["images"], irradiance=fit["irradiance"], keep_light=0.06)
    g.group("5. Look, and hand over", "violet")
    view(g, plate["fps"], rgb=plate["images"], albedo=fit["albedo"], irradiance=lit["irradiance"],
            normal=shown["normal"], pictures__picture0=lit["relit"])
    g.column()
    g.add("StrataSaveLayersEXR", title="Strata Save Layers EXR", wide=340, filename_prefix="strata/day_to_night/shot",
          rgb=lit["relit"], albedo=fit["albedo"], irradiance=lit["irradiance"], normal=shown["normal"],
          residual=fit["residual"], frame_rate=plate["fps"])
    write_clips(g, "day_to_night", {"night": lit["relit"]}, plate["fps"])


def light_of_the_new_background(g: Graph) -> None:
    m = Models(g, ("alpha", "intrinsic"), "## A new background, and its light on the foreground (R2PFB, "
               "R2AIN)\n\nAlpha cuts the foreground out, intrinsic gives its normals and its light; the new "
               "background, as a panorama, lights it anew by ratio, so that all of the plate's detail stays; then it "
               f"is laid over. {ALPHA_SIZE}")
    g.group("2. Your plate, and the new background", "green")
    plate = read_clip(g, "person.mp4", "Your plate")
    new = read_clip(g, "new_background.mp4", "The new background")
    g.group("3. Make the layers", "amber")
    empty = no_prompt(g, m)
    made = {}
    for family in ("alpha", "intrinsic"):
        g.column()
        asked = layers(g, m, family, rgb=plate["images"])
        made[family] = sample(g, m, family, asked, model=m.of[family], seed=1, **empty)
    g.group("4. The new light", "amber")
    matte, parts = (decode(g, m, sampled["LATENT"]) for sampled in made.values())
    clean = g.add("StrataDecontaminate", title="Strata Decontaminate", wide=340, plate=plate["images"],
                  alpha=matte["alpha_mask"], background=matte["bg"])
    g.column()
    sky = g.add("ImageScale", title="The background as a panorama", wide=320, image=new["images"],
                upscale_method="area", width=128, height=64, crop="disabled")
    lights = g.add("StrataEnvironmentLight", title="Strata Environment Light", wide=320, panorama=sky["IMAGE"],
                   exposure=1.0)
    lit = g.add("StrataRelight", title="Strata Relight: by ratio", wide=340, normal=parts["normal"],
                lights=lights["lights"], mode="plate x new / old light", mode__limit=2.0, plate=clean["foreground"],
                irradiance=parts["irradiance"])
    layer = g.add("StrataCompLayer", title="Strata Comp Layer", wide=320, foreground=lit["relit"],
                  alpha=matte["alpha_mask"])
    comp = g.add("StrataLayerCompositor", title="Strata Layer Compositor", wide=320, room=20, background=new["images"],
                 layers__layer0=layer["layer"])
    g.group("5. Look, and save", "violet")
    view(g, plate["fps"], rgb=plate["images"], alpha=matte["alpha_mask"], fg=lit["relit"], normal=parts["normal"],
            pictures__picture0=comp["plate"])
    write_clips(g, "new_light", {"comp": comp["plate"]}, plate["fps"])


GRAPHS = {describe.__name__: describe for describe in (
    relight_layers, new_background, small_layers_at_plate_size, exr_there_and_back, alpha_video, matting_to_exr,
    day_to_night, light_of_the_new_background)}
