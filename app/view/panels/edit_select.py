"""Selecting: tools that draw over the picture, shapes in the scene, colour, and ranges of values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import viser
from viser import uplot

from anchorfield.app.edit import operations as ops
from anchorfield.app.edit import selecting
from anchorfield.app.edit.operations import Mode, Operation
from anchorfield.app.edit.values import LARGEST
from anchorfield.app.view.overlay import Gesture, Tool
from anchorfield.app.view.panels.edit_shapes import Gizmo, Shape
from anchorfield.app.view.panels.editing import Desk
from anchorfield.app.view.panels.pointer import POINT, camera_of, colour_at, pixels_of, pointer_of
from anchorfield.app.view.panels.widgets import on_hand, put
from anchorfield.renderer.errors import UsageError

MODES: dict[str, Mode] = {
    "Select anew": "set",
    "Add to the selection": "add",
    "Take from the selection": "remove",
    "Keep only what is in both": "intersect",
}
TOOL = "Select"  # before the pointer
HAND = "Hand (move the camera)"
TOOLS = {
    HAND: "Drag to look around.",
    "Rectangle": "Drag a rectangle over the picture.",
    "Lasso": "Draw a line around what you want.",
    "Brush": "Paint over what you want. Keys [ and ] change the size.",
    "Sphere": "Drag the arrows to move the ball; all inside is selected.",
    "Box": "Drag the arrows and arcs to move and turn the box; all inside is selected.",
    "Plane": "Drag the arrows and arcs; all on the side of the blue (z) arrow is selected.",
    "Colour": "Click a colour in the picture, or choose one here.",
    "By value": "Choose by opacity, size, shape or place.",
}
DRAWN = {"Rectangle": "rectangle", "Lasso": "lasso", "Brush": "brush"}
SHAPES: dict[str, Shape] = {"Sphere": "sphere", "Box": "box", "Plane": "plane"}
KEYS = {
    HAND: "V",
    "Rectangle": "R",
    "Lasso": "L",
    "Brush": "O",
    "Sphere": "G",
    "Box": "J",
    "Colour": "Y",
    "By value": "Z",
}
WHILE_DRAWING = " Shift adds, Alt takes away; hold Space to move the camera."
ATTRIBUTES = {
    "Opacity": "opacity",
    "Size": "size",
    "Length against width": "elongation",
    "Distance from the middle": "distance",
    "Red": "red",
    "Green": "green",
    "Blue": "blue",
}
STEPS, BINS = 1000, 60  # of the slider; of the histogram


def build(desk: Desk) -> viser.GuiFolderHandle:
    """The folder, and hotkeys for the tools."""
    return _Select(desk).folder


class _Select:
    """The chosen tool and its widgets."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._viewer = desk, desk.viewer
        viewer, gui = desk.viewer, desk.viewer.gui
        self._pointer = pointer_of(viewer)
        self._gizmo = Gizmo(viewer, self._preview)
        with gui.add_folder("Select") as self.folder:
            self._tool = gui.add_dropdown("Tool", tuple(TOOLS), hint="Keys: V hand, R rectangle, L lasso, O brush")
            self._help = gui.add_markdown("")
            self._mode = gui.add_dropdown("How", tuple(MODES), hint="What becomes of what is selected already")
            self._front = gui.add_checkbox("Only what is in front", False, hint="Leaves out what is covered from here")
            self._radius = gui.add_slider("Brush (pixels)", 2, 200, 1, 24)
            self._size = gui.add_slider("Radius", 0.01, 1.0, 0.01, 0.1, hint="The cameras lie within a radius of 1")
            self._sizes = gui.add_vector3("Half sides", (0.1, 0.1, 0.1), min=(0.005,) * 3, step=0.01)
            self._colour = gui.add_rgb("Colour", (128, 128, 128))
            self._tolerance = gui.add_slider("Tolerance", 0.01, 1.0, 0.01, 0.15, hint="How different a colour may be")
            self._attribute = gui.add_dropdown("Value", tuple(ATTRIBUTES))
            self._plot = gui.add_uplot(
                (np.arange(2.0), np.zeros(2)),
                (
                    uplot.Series(label="value"),
                    uplot.Series(label="Gaussians", stroke="#2f9bff", fill="#2f9bff44", width=1),
                ),
                scales={"x": uplot.Scale(time=False)},
                legend=uplot.Legend(show=False),
                height=120,
            )
            self._range = gui.add_multi_slider(
                "From, to (%)", 0.0, 100.0, 0.5, (0.0, 5.0), hint="Of all Gaussians in the order of the value"
            )
            self._found = gui.add_markdown("")
            self._take = viewer.button("Select these", lambda _: self._select(), icon="check", colour="green")
            self._groups(gui)
        self._edges: np.ndarray[Any, np.dtype[np.float64]] = np.zeros(0)
        on_hand(viewer, "Tool", self._tool, self._switch)
        on_hand(viewer, "Brush", self._radius, lambda _: self._switch_brush())
        on_hand(viewer, "Value", self._attribute, self._show_values)
        self._size.on_update(lambda event: self._resize(event.client_id))
        self._sizes.on_update(lambda event: self._resize(event.client_id))
        for handle in (self._colour, self._tolerance, self._range, self._mode):
            handle.on_update(lambda event: self._preview(event.client_id))
        viewer.on_open(self._put_away)
        for name, key in KEYS.items():
            viewer.command(f"Tool: {name}", key, lambda client, name=name: self._choose(name, client), TOOLS[name])  # type: ignore[misc]
        viewer.command("Tool: Plane", None, lambda client: self._choose("Plane", client), TOOLS["Plane"])
        self._arrange()

    def _groups(self, gui: viser.GuiApi) -> None:
        viewer, do = self._viewer, self._desk.do
        self._step = gui.add_number("Grow by", 0.02, min=0.001, step=0.005, hint="How far Grow and Shrink go")
        named = {
            "Grow": lambda: ops.Grow(float(self._step.value)),
            "Shrink": lambda: ops.Shrink(float(self._step.value)),
            "All": ops.SelectAll,
            "None": ops.SelectNone,
            "Invert": ops.Invert,
            "Hide": ops.Hide,
            "Show all": ops.Unhide,
            "Lock": ops.Lock,
            "Unlock all": ops.Unlock,
        }
        rows = (("All", "None", "Invert"), ("Grow", "Shrink"), ("Hide", "Show all"), ("Lock", "Unlock all"))
        hints = (
            "What is selected",
            "The selection",
            "Hidden ones are not shown or changed",
            "Locked ones stay as they are",
        )
        for row, hint in zip(rows, hints, strict=True):
            group = gui.add_button_group("", row, hint=hint)
            group.on_click(
                lambda event: viewer.act(event.target.value, lambda: do(named[event.target.value]()), event.client_id)
            )
        for name, key in (
            ("All", "shift+I"),
            ("None", "shift+N"),
            ("Invert", "I"),
            ("Hide", "H"),
            ("Show all", "shift+H"),
        ):
            label = f"Select: {name}" if name in rows[0] else f"{name} (selection)" if name == "Hide" else name
            viewer.command(label, key, lambda _, name=name: do(named[name]()))  # type: ignore[misc]
        for name in ("Grow", "Shrink", "Lock", "Unlock all"):
            viewer.command(f"{name} (selection)", None, lambda _, name=name: do(named[name]()))  # type: ignore[misc]

    # Choosing a tool.

    def _choose(self, name: str, client: int) -> str:
        put(self._tool, value=name)
        self._switch(client)
        return TOOLS[name]

    def _switch(self, client: int) -> None:
        """Take what the dropdown says to hand."""
        name = self._tool.value
        self._gizmo.hide()
        if name != HAND:
            try:
                self._desk.editor  # noqa: B018 - says in words where nothing can be edited
            except UsageError:
                self._put_away()
                raise
        if name in DRAWN:
            tool = Tool(DRAWN[name], float(self._radius.value))  # type: ignore[arg-type]
            self._pointer.take(TOOL, tool, self._drawn, self._put_away)
        elif name == "Colour":
            self._pointer.take(TOOL, POINT, self._picked, self._put_away)
        else:
            self._pointer.release(TOOL, tell=False)
        self._desk.end_preview()
        self._arrange()
        if name in SHAPES:
            self._gizmo.show(SHAPES[name], self._shape_sizes(), client)
            self._preview(client)
        if name == "By value":
            self._show_values(client)

    def _switch_brush(self) -> None:
        if self._tool.value == "Brush":
            self._pointer.take(TOOL, Tool("brush", float(self._radius.value)), self._drawn, self._put_away)

    def _put_away(self) -> None:
        """Another panel has the mouse, or Escape was pressed."""
        put(self._tool, value=HAND)
        self._gizmo.hide()
        self._arrange()
        self._desk.end_preview()

    def _arrange(self) -> None:
        """Only the widgets of the tool."""
        name = self._tool.value
        put(self._help, content=f"*{TOOLS[name]}{WHILE_DRAWING if name in DRAWN else ''}*")
        put(self._found, content="")
        placed = name in SHAPES or name in ("Colour", "By value")
        for handle, visible in (
            (self._mode, name != HAND),
            (self._front, name in DRAWN),
            (self._radius, name == "Brush"),
            (self._size, name == "Sphere"),
            (self._sizes, name == "Box"),
            (self._colour, name == "Colour"),
            (self._tolerance, name == "Colour"),
            (self._attribute, name == "By value"),
            (self._plot, name == "By value"),
            (self._range, name == "By value"),
            (self._take, placed),
            (self._found, placed),
        ):
            put(handle, visible=visible)

    # What the tools select.

    def _drawn(self, gesture: Gesture) -> str:
        camera = camera_of(self._viewer, gesture)
        points, mode, front = tuple(pixels_of(gesture, camera)), self._held(gesture), bool(self._front.value)
        if gesture.kind == "rectangle":
            (x0, y0), (x1, y1) = points
            return self._desk.do(ops.SelectRectangle(mode, camera, front, x0, y0, x1, y1))
        if gesture.kind == "lasso":
            return self._desk.do(ops.SelectLasso(mode, camera, front, points))
        return self._desk.do(ops.SelectBrush(mode, camera, front, points, gesture.radius))

    def _held(self, gesture: Gesture) -> Mode:
        """Keys that are held go before the dropdown."""
        if "shift" in gesture.modifiers:
            return "intersect" if "alt" in gesture.modifiers else "add"
        return "remove" if "alt" in gesture.modifiers else MODES[self._mode.value]

    def _picked(self, gesture: Gesture) -> None:
        put(self._colour, value=colour_at(self._viewer, gesture))
        self._preview(gesture.client_id)

    def _operation(self) -> Operation:
        """What Select these would do."""
        name, mode = self._tool.value, MODES[self._mode.value]
        if name in SHAPES:
            return self._gizmo.operation(mode)
        if name == "Colour":
            red, green, blue = (value / 255 for value in self._colour.value)
            return ops.SelectColour(mode, (red, green, blue), float(self._tolerance.value))
        if name == "By value":
            low, high = self._bounds()
            return ops.SelectRange(mode, cast(ops.Attribute, ATTRIBUTES[self._attribute.value]), low, high)
        raise UsageError("draw over the picture to select with this tool")

    def _select(self) -> str:
        return self._desk.do(self._operation())

    def _preview(self, client: int | None) -> None:
        if client is None or self._tool.value in DRAWN or self._tool.value == HAND:
            return

        def tell(sentence: str | None) -> None:
            put(self._found, content=f"{sentence or ''}{self._values()}")

        self._desk.preview(self._operation, tell, client)

    # Shapes and values.

    def _shape_sizes(self) -> tuple[float, float, float]:
        if self._tool.value == "Sphere":
            return (float(self._size.value),) * 3
        x, y, z = self._sizes.value
        return float(x), float(y), float(z)

    def _resize(self, client: int | None) -> None:
        if client is not None and self._tool.value in SHAPES:
            self._gizmo.resize(self._shape_sizes())
            self._preview(client)

    def _show_values(self, client: int) -> None:
        """The histogram, and where each hundredth of the Gaussians lies."""
        editor, attribute = self._desk.editor, cast(ops.Attribute, ATTRIBUTES[self._attribute.value])
        values = selecting.attribute(editor.gaussians, attribute)[~editor.hidden].numpy()
        values = np.sort(values[np.isfinite(values)])
        if not len(values):
            raise UsageError("all Gaussians are hidden: press Show all first")
        self._edges = values[np.round(np.linspace(0, len(values) - 1, STEPS + 1)).astype(int)]
        low, high = self._edges[STEPS // 200], self._edges[-STEPS // 200]
        wide = attribute in ("size", "elongation") and low > 0
        high = max(float(high), float(low) * 1.01 if wide else float(low) + 1e-6)
        shown = np.geomspace(low, high, BINS + 1) if wide else np.linspace(low, high, BINS + 1)
        self._plot.scales = {"x": uplot.Scale(time=False, distr=3 if wide else 1)}
        self._plot.data = ((shown[:-1] + shown[1:]) / 2, np.histogram(values, shown)[0].astype(np.float64))
        self._preview(client)

    def _bounds(self) -> tuple[float, float]:
        low, high = (float(value) for value in self._range.value)
        if not len(self._edges):
            raise UsageError("choose a value first")
        first = -LARGEST if low <= 0 else float(self._edges[round(STEPS * low / 100)])
        last = LARGEST if high >= 100 else float(self._edges[round(STEPS * high / 100)])
        return first, last

    def _values(self) -> str:
        """The range in the value's own unit."""
        if self._tool.value != "By value" or not len(self._edges):
            return ""
        low, high = (float(self._edges[round(STEPS * value / 100)]) for value in self._range.value)
        return f"  \n{self._attribute.value} from {low:.3g} to {high:.3g}"
