"""Moving images of a tiny generator: stops are exact, ways are even, loops close, and programs are compiled once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nada_jax import images
from nada_jax.errors import UserError
from nada_jax.latents import directions
from nada_jax.latents.codes import Codes
from nada_jax.latents.directions import Direction, DirectionArchitecture
from nada_jax.models.blending import transfer
from nada_jax.models.stylegan2 import Architecture
from nada_jax.motion import drawing, scenes
from nada_jax.motion.scenes import Identity, Scene, Stop
from nada_jax.motion.settings import EASINGS, Timing, Video, count_frames, shares

STEPS = 10  # frames of a leg


def timing(**fields):
    return Timing(**{"seconds": 1.0, "easing": "linear", "loop": True} | fields)


def video(**fields):
    plain = {"format": "frames", "fps": float(STEPS), "side": 0, "columns": 0, "labels": False}
    return Video(**plain | fields)


@pytest.fixture(scope="module")
def source(random_generator):
    """A generator whose images are soft enough for ways between them: 8 pixels, random weights."""
    generator = random_generator(Architecture((6, 5), z_dim=7, w_dim=8, mapping_layers=2))
    quiet = jax.tree.map(lambda x: 0.3 * x, generator.params["synthesis"])
    return generator.replace(params=generator.params | {"synthesis": quiet})


def changed(generator, seed, amount=0.05):
    """An adaptation of it, in the synthesis network alone."""
    random = np.random.default_rng(seed)
    moved = jax.tree.map(
        lambda x: x + np.float32(amount) * random.standard_normal(x.shape, np.float32),
        generator.params["synthesis"],
    )
    return generator.replace(params=generator.params | {"synthesis": moved})


@pytest.fixture(scope="module")
def domains(source):
    return {"red_hair": changed(source, 1), "stone": changed(source, 2)}


@pytest.fixture(scope="module")
def who(source):
    return [scenes.identity(source, seed, 0.7) for seed in range(3)]


def drawn(scene, **fields):
    """All frames, in batches that do not divide them."""
    told = []
    timing_, video_ = fields.pop("timing", timing()), video(**fields)
    found = drawing.frames(
        scene, timing_, video_, batch=4, report=lambda done, total: told.append((done, total))
    )
    frames = np.concatenate(list(found))
    total = count_frames(scene.legs(timing_.loop), timing_, video_.fps)
    assert told[-1] == (len(frames), len(frames)) and len(frames) == total
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    return frames


def image(generator, codes):
    return images.to_uint8(np.asarray(codes.draw(generator)))[0]


def assert_at(frame, generator, codes):
    """One level of 255 is what another order of sums may change."""
    assert np.abs(frame.astype(int) - image(generator, codes)).max() <= 1


def assert_even(frames, loop=True):
    """No frame jumps, from the last to the first either."""
    following = np.roll(frames, -1, axis=0) if loop else frames[1:]
    change = np.abs(following.astype(int) - frames[: len(following)]).mean(axis=(1, 2, 3))
    assert 0 < change.max() < 4 * change.mean()
    # Ten frames, and not one, are the way between two images.
    assert change.max() < np.abs(frames[STEPS].astype(int) - frames[0]).mean()


@pytest.mark.parametrize("loop", [True, False])
def test_a_walk_goes_through_its_identities(source, who, loop):
    frames = drawn(scenes.walk(source, who), timing=timing(loop=loop))
    for i in range(3):
        assert_at(frames[i * STEPS], source, who[i].codes)
    assert len(frames) == (3 * STEPS if loop else 2 * STEPS + 1)
    assert_even(frames, loop)


def test_a_walk_on_the_sphere_goes_through_its_seeds(source, who):
    scene = scenes.spherical_walk(source, [0, 1, 2], 0.7)
    frames = drawn(scene)
    for i in range(3):
        assert_at(frames[i * STEPS], source, who[i].codes)
    assert_even(frames)
    # Halfway, a latent is as long as those of seeds, and not nearer to the origin as on the straight way.
    one, other = (stop.codes.z for stop in scene.tiles[0][:2])
    lengths = [np.linalg.norm(z) for z in (one, other)]
    angle = np.arccos(np.sum(one * other) / np.prod(lengths))
    between = sum(z / length for z, length in zip((one, other), lengths, strict=True))
    z = between / (2 * np.cos(angle / 2)) * np.mean(lengths)
    ws = source.broadcast(source.truncate(source.map(z), 0.7))
    assert_at(frames[STEPS // 2], source, Codes(ws=ws))
    again = drawn(scenes.spherical_walk(source, [1, 1], 0.7))  # an arc of no length
    assert_at(again[5], source, who[1].codes)


def test_weights_go_through_the_domains_and_back(source, domains, who):
    scene = scenes.through_domains(source, domains, who[:2])
    frames = drawn(scene, columns=2)
    assert frames.shape == (3 * STEPS, 8, 16 + drawing.GAP, 3)
    for i, generator in enumerate((source, *domains.values())):
        assert_at(frames[i * STEPS, :, :8], generator, who[0].codes)
        assert_at(frames[i * STEPS, :, -8:], generator, who[1].codes)
    assert_even(frames)
    once = drawn(scene, timing=timing(loop=False), columns=2)
    assert_at(once[-1][:, :8], domains["stone"], who[0].codes)


def test_one_identity_moves_in_all_domains_together(source, domains, who):
    walk = scenes.walk(source, who)
    scene = scenes.side_by_side(walk, source, {"source": source} | domains)
    assert list(scene.labels) == ["source", "red hair", "stone"]
    frames = drawn(scene)
    for i, generator in enumerate((source, *domains.values())):
        tile = frames[:, :, i * (8 + drawing.GAP) :][:, :, :8]
        assert_at(tile[STEPS], generator, who[1].codes)
        middle = Codes(ws=(who[0].codes.ws + who[1].codes.ws) / 2)
        assert_at(tile[STEPS // 2], generator, middle)
    sphere = scenes.side_by_side(scenes.spherical_walk(source, [0, 1], 0.7), source, domains)
    assert_at(drawn(sphere)[STEPS][:, :8], domains["red_hair"], who[1].codes)


@pytest.mark.parametrize("space", ["w", "style"])
def test_an_edit_passes_its_strengths_in_every_domain(space, source, domains, who):
    architecture = DirectionArchitecture.of(source, space)
    random = np.random.default_rng(0)
    steps = {k: random.standard_normal(n, np.float32) for k, n in architecture.shapes().items()}
    direction, strengths = Direction(steps, architecture), (0.0, 2.0, -1.0)
    scene = scenes.along(source, direction, strengths, who[:1], {"": source} | domains)
    frames = drawn(scene)
    for i, strength in enumerate(strengths):
        moved = directions.move(who[0].codes, source, [direction], [strength])
        assert_at(frames[i * STEPS, :, :8], source, moved)
        stone = domains["stone"]
        carried = directions.carry(moved, who[0].codes, source, stone)
        assert_at(frames[i * STEPS, :, -8:], stone, carried)
    assert list(scene.captions) == ["0", "+2", "-1"]
    with pytest.raises(UserError, match="in 2 domains shows one identity, and there are 3"):
        scenes.along(source, direction, strengths, who, domains)


def test_images_with_generators_of_their_own_and_styles_and_noise_meet(source, domains, who):
    tuned, random = changed(source, 7, 0.02), np.random.default_rng(0)
    styles = Codes(styles=who[1].codes.all_styles(source))
    buffers = {
        name: random.standard_normal((1, side, side), np.float32)
        for name, side in source.architecture.noise_sizes().items()
    }
    noisy = who[2].codes.replace(noise=buffers)
    several = [Identity(who[0].codes, tuned), Identity(styles), Identity(noisy)]
    frames = drawn(scenes.walk(source, several))
    for i, one in enumerate(several):
        assert_at(frames[i * STEPS], one.tuned or source, one.codes)
    assert_even(frames)
    frames = drawn(scenes.through_domains(source, domains, several[:1]))
    assert_at(frames[0], tuned, who[0].codes)
    assert_at(frames[STEPS], transfer(domains["red_hair"], source, tuned), who[0].codes)


def test_programs_are_compiled_once(source, domains, who):
    scene = scenes.side_by_side(scenes.walk(source, who), source, domains)
    drawn(scene), drawn(scenes.through_domains(source, domains, who[:1]))
    before = [f._cache_size() for f in (drawing._still, drawing._changing, drawing._linear)]
    drawn(scene, timing=timing(loop=False, seconds=0.7))
    drawn(scenes.through_domains(source, domains, who[1:]), timing=timing(seconds=1.3))
    after = [f._cache_size() for f in (drawing._still, drawing._changing, drawing._linear)]
    assert before == after


def test_a_report_ends_the_work_and_nothing_is_left(source, who, tmp_path):
    def report(done, total):
        if done >= 8:
            raise InterruptedError

    scene = scenes.walk(source, who)
    with pytest.raises(InterruptedError):
        drawing.write(
            tmp_path / "video.gif", scene, timing(), video(format="gif"), batch=4, report=report
        )
    assert not list(tmp_path.iterdir())
    stills = drawing.write(tmp_path / "video.gif", scene, timing(), video(format="gif"), batch=4)
    assert len(stills) == drawing.STILLS and (tmp_path / "video.gif").is_file()


def test_frames_begin_at_stops_and_a_loop_ends_before_its_first():
    for easing, loop in itertools.product(EASINGS, (True, False)):
        settings = timing(easing=easing, loop=loop)
        ways = shares(3, settings, 10.0)
        assert sum(map(len, ways)) == count_frames(3, settings, 10.0) == 30 + (not loop)
        assert all(way[0] == 0 and (np.diff(way) > 0).all() for way in ways)
        assert (ways[-1][-1] == 1) == (not loop)
    assert count_frames(10**6, timing(seconds=1e6), 100.0) == 10**14  # counted, and not made
    assert len(shares(1, timing(seconds=1e-9), 30.0)[0]) == 1


@pytest.mark.parametrize(
    ("count", "fields", "size"),
    [
        (1, {}, (8, 8)),
        (1, {"side": 20}, (16, 16)),  # by whole pixels
        (3, {}, (8, 32)),
        (4, {"side": 16}, (36, 36)),
        (5, {}, (20, 32)),
        (5, {"columns": 1}, (56, 8)),
        (2, {"labels": True}, (8 + 22, 20)),
        (2, {"side": 4}, (4, 12)),
    ],
)
def test_layouts(count, fields, size, source):
    scene = Scene([[Stop(source, None)]] * count, ["label"] * count)
    layout = drawing.Layout.of(scene, video(**fields))
    assert layout.size == size
    tiles = [np.full((2, 8, 8, 3), 40 * i, np.uint8) for i in range(count)]
    frames = layout.compose(tiles, [])
    assert frames.shape == (2, *size, 3) and (frames[:, : layout.side, : layout.side] == 0).all()
    colours = {40 * i for i in range(count)} | ({255} if count > 1 else set())
    assert colours <= set(np.unique(frames).tolist())


def test_words_stand_below_tiles_and_follow_the_stops(source):
    scene = Scene([[Stop(source, None)] * 2], ["tile"], ["here", "there"])
    layout = drawing.Layout.of(scene, video(labels=True, side=64))
    frames = layout.compose([np.zeros((2, 8, 8, 3), np.uint8)], ["here", "there"])
    assert frames.shape == (2, 64 + 22 + 22, 64, 3)
    words = frames[:, 64:]
    assert (words < 128).any(axis=(2, 3)).any(axis=1).all()
    assert np.array_equal(*words[:, :22]) and not np.array_equal(*words[:, 22:])


def test_what_cannot_be_shown_is_named(source, who, domains):
    for wrong, message in (
        (lambda: scenes.walk(source, who[:1]), "there are 1 identities; expected at least two"),
        (lambda: scenes.through_domains(source, {}, who), "generators is empty"),
        (lambda: drawn(scenes.walk(source, who), timing=timing(seconds=1e5)), "3,000,000 frames"),
        (
            lambda: drawn(scenes.walk(source, who), side=8192, format="gif"),
            "30 frames of 8,192 x 8,192 pixels are 2,013,265,920 in all",
        ),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
    broken = source.replace(params=jax.tree.map(lambda x: x * jnp.nan, source.params))
    with pytest.raises(UserError, match="images are not finite"):
        drawn(scenes.walk(broken, who))
