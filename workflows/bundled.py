"""The graph that needs no download and no clip: it runs on the models that come with Strata."""

from __future__ import annotations

from graph import Graph
from parts import Models, decode, layers, no_prompt, prompt, sample, view, write_clips, write_text

PROMPT = ("A person with a red shirt walks in a room with a grey ground and teal walls. A warm lamp lights the scene. "
          "The camera pans to the left.")
RATE = 8
LAYERS = ("rgb", "albedo", "irradiance", "normal")


def start_here(g: Graph) -> None:
    """Words to layers, new light, and what is seen in it."""
    m = Models(g, ("tiny", "tiny_vigu"),
               "## Queue this first: no download, no clip, no GPU\n\nThe models come with Strata. They are tiny, for "
               "9 frames of 64x64 pixels in a world of simple things, but all is done as with the published "
               "ones.\n\n**First pass**: your words into a shot with all its layers (t2RAIN). **Edit**: its light is "
               "tinted. **Second pass**: the picture in the new light (AIN2R). **Words**: what that picture shows "
               "(R2C).\n\nThese models know the words of the prompt and some more; of another one you are told the "
               "nearest.\n\nThe other graphs run on them, too: choose the strata_tiny files in their loaders, "
               "*Strata Load Words* in the place of Load CLIP, and 9 frames of 64x64 pixels.", height=640)
    g.group("2. What you want to see", "green")
    told, empty = prompt(g, m, PROMPT)["positive"], no_prompt(g, m)["positive"]
    g.group("3. First pass: a shot with its layers", "amber")
    asked = layers(g, m, "intrinsic", "nothing is given", width=64, height=64, length=9)
    g.column()
    first = sample(g, m, "first pass", asked, seed=1, steps=20, cfg=2.0, positive=told, negative=empty)
    g.group("4. Edit the light", "green")
    shown = decode(g, m, first["LATENT"])
    warm = g.add("EmptyImage", title="A warm colour", width=64, height=64, batch_size=1, color=0xFFC890)
    edited = g.add("ImageBlend", title="Tint the light", image1=shown["irradiance"], image2=warm["IMAGE"],
                   blend_factor=0.8, blend_mode="multiply")
    g.group("5. Second pass: the picture", "amber")
    again = layers(g, m, "intrinsic", "the same shot in the new light", albedo=shown["albedo"],
                   irradiance=edited["IMAGE"], normal=shown["normal"])
    g.column()
    second = sample(g, m, "second pass", again, seed=2, steps=20, positive=empty)
    relit = decode(g, m, second["LATENT"])
    g.group("6. Look at all, and read what is seen", "violet")
    view(g, RATE, **{name: shown[name] for name in LAYERS})
    g.column()
    caption = g.add("StrataCaption", title="Strata Caption: what the new picture shows", wide=380, room=200,
                    model=m.of["tiny_vigu"], vae=m.vae, images=relit["rgb"], seed=1, width=64, height=64, max_frames=9)
    write_text(g, "start_here", "caption", caption["caption"], "The caption")
    write_clips(g, "start_here", {**{name: shown[name] for name in LAYERS}, "relit": relit["rgb"]}, RATE, square=True)


GRAPHS = {start_here.__name__: start_here}
