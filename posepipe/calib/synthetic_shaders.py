"""The shaders of the synthetic studio (GLSL 3.30): one light from the sky, one sun with a shadow, floors and walls by formula.

There is a fragment shader for each kind of surface: a software rasteriser runs both sides of every `if`.
"""

from __future__ import annotations

VERTEX = """
#version 330
uniform mat4 clip_from_world;
uniform mat4 sun_from_world;
uniform vec3 depth_row;      // camera z of a world point: dot(depth_row, p) + depth_shift
uniform float depth_shift;
in vec3 in_position;
in vec3 in_normal;
in vec3 in_colour;
in vec4 in_surface;          // part / 255, u, v, person / 255
in vec4 in_texture;          // where the noise is looked up (m), kind of surface
out vec3 world;
out vec3 normal;
out vec3 colour;
out vec2 uv;
out vec3 texture_m;
out vec3 in_sun;
out float depth_m;
flat out vec2 part_person;
flat out int kind;
void main() {
    world = in_position;
    normal = in_normal;
    colour = in_colour;
    uv = in_surface.yz;
    part_person = in_surface.xw;
    texture_m = in_texture.xyz;
    kind = int(in_texture.w + 0.5);
    vec4 s = sun_from_world * vec4(in_position, 1.0);
    in_sun = s.xyz * 0.5 + 0.5;
    depth_m = dot(depth_row, in_position) + depth_shift;
    gl_Position = clip_from_world * vec4(in_position, 1.0);
}
"""

_FRAGMENT = """
#version 330
uniform sampler2D noise;
uniform sampler2DShadow shadow;
uniform vec3 sun;
uniform float exposure;
uniform int contacts;
uniform vec4 contact[32];    // a foot on the floor: x, y, how strong
in vec3 world;
in vec3 normal;
in vec3 colour;
in vec2 uv;
in vec3 texture_m;
in vec3 in_sun;
in float depth_m;
flat in vec2 part_person;
flat in int kind;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out vec4 out_surface;
layout(location = 2) out float out_depth;

float grain(vec2 p) { return texture(noise, p).r - 0.5; }

@PATTERN@

void main() {
    vec3 n = normalize(normal);
    float facing = dot(n, sun);
    float lit = texture(shadow, in_sun - vec3(0.0, 0.0, 0.0015 + 0.003 * (1.0 - abs(facing))));
    vec3 sky = mix(vec3(0.30, 0.27, 0.24), vec3(0.52, 0.55, 0.60), 0.5 + 0.5 * n.z);
@CONTACTS@
    vec3 light = sky + vec3(0.85, 0.80, 0.72) * max(facing, 0.0) * lit;
    out_colour = vec4(pow(clamp(pattern() * light * exposure, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
    out_surface = vec4(part_person.x, uv, part_person.y);
    out_depth = depth_m;
}
"""

SHADOW_VERTEX = """
#version 330
uniform mat4 sun_from_world;
in vec3 in_position;
void main() { gl_Position = sun_from_world * vec4(in_position, 1.0); }
"""

SHADOW_FRAGMENT = """
#version 330
void main() {}
"""

_CONTACTS = """
    float near = 1.0;
    for (int i = 0; i < contacts; i++) {
        vec2 d = world.xy - contact[i].xy;
        float w = 1.0 / (1.0 + dot(d, d) / 0.012);
        near *= 1.0 - contact[i].z * w * w;
    }
    sky *= near;
"""

_WOOD = """
vec3 pattern() {
    float row = floor(world.y / 0.14);
    float along = world.x + 0.37 * row;
    float plank = texture(noise, vec2(row * 0.137, floor(along / 1.3) * 0.171)).r;
    float seam = smoothstep(0.0, 0.02, fract(world.y / 0.14)) * smoothstep(0.0, 0.004, fract(along / 1.3));
    return colour * (0.8 + 0.35 * plank + 0.25 * grain(vec2(along * 0.35, world.y * 4.0))) * (0.65 + 0.35 * seam);
}
"""

_MATS = """
vec3 pattern() {
    vec2 tile = floor(world.xy / 0.5);
    float tone = mod(tile.x + tile.y, 2.0) < 0.5 ? 1.0 : 0.72;
    return colour * tone * (1.0 + 0.2 * grain(world.xy * 1.7));
}
"""

_PLASTER = """
vec3 pattern() {
    return colour * (1.0 + 0.10 * grain((world.xy + world.yz + world.zx) * 0.23) + 0.05 * grain((world.xy + world.zz) * 2.1));
}
"""

_PERSON = """
vec3 pattern() {
    float fold = grain(texture_m.xz * vec2(2.2, 1.1)) + 0.6 * grain(texture_m.yz * 4.3);
    return colour * (1.0 + (kind == 4 ? 0.06 : 0.28) * fold);    // 4: skin, else cloth
}
"""


def fragment(pattern: str, *, on_floor: bool) -> str:
    """The fragment shader of surfaces with a pattern; on_floor: darker where feet touch it."""
    return _FRAGMENT.replace("@PATTERN@", pattern).replace("@CONTACTS@", _CONTACTS if on_floor else "")


FRAGMENTS = {1: fragment(_WOOD, on_floor=True), 2: fragment(_MATS, on_floor=True), 3: fragment(_PLASTER, on_floor=False)}
"""By kind of surface (`synthetic_mesh.WOOD`, `MATS`, `PLASTER`); all other kinds are people."""
PERSON = fragment(_PERSON, on_floor=False)
