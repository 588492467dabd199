// The overlay over viser's canvas: gestures, the line of status, the handle of the split. overlay.py says the messages.
(() => {
  "use strict";
  const MAX_POINTS = 2048; // the program takes twice as many
  const MIN_STEP = 3; // CSS pixels between two points of a path
  const COLOUR = "#2f9bff";

  let socket = null;
  let key = null; // which viser client this page is
  let backoff = 250;
  let tool = { kind: null, radius: 24 };
  let stroke = null; // {id, points in pixels, modifiers}
  let cursor = null; // of the brush
  let spaceHeld = false;
  let dragging = false; // the handle of the split

  // The page.

  const root = document.createElement("div");
  root.id = "anchorfield-overlay";
  const paper = document.createElement("canvas");
  const handle = document.createElement("div");
  handle.className = "split";
  handle.hidden = true;
  const line = document.createElement("div");
  line.className = "status";
  root.append(paper, handle, line);
  let pending = true;
  const redraw = () => {
    // Hidden where nothing is drawn: a busy browser has kept showing what was cleared.
    paper.hidden = stroke === null && (tool.kind !== "brush" || cursor === null);
    if (pending) return;
    pending = true;
    requestAnimationFrame(draw);
  };

  const picture = () => {
    // viser's picture is the largest canvas that takes clicks; the one above it, as large, takes none.
    let best = null;
    for (const canvas of document.querySelectorAll("canvas")) {
      if (getComputedStyle(canvas).pointerEvents === "none") continue;
      const { width, height } = canvas.getBoundingClientRect();
      if (width * height > 0 && (best === null || width * height > best.area)) best = { canvas, area: width * height };
    }
    return best && best.canvas;
  };
  let target = null;
  const bounds = () => {
    if (target === null || !target.isConnected) target = picture();
    return target === null ? null : target.getBoundingClientRect();
  };

  // The picture lies under viser's canvas, which is transparent where viser draws nothing.
  const layer = document.createElement("canvas");
  layer.id = "anchorfield-picture";
  const shown = layer.getContext("bitmaprenderer");
  let waiting = null; // the newest picture that was not begun
  let busy = false;
  let blank = false; // the page draws for itself
  const show = async (data) => {
    waiting = data;
    blank = false;
    if (busy) return;
    busy = true;
    try {
      while (waiting !== null) {
        const blob = new Blob([waiting], { type: "image/jpeg" });
        waiting = null;
        const bitmap = await createImageBitmap(blob);
        if (!blank) shown.transferFromImageBitmap(bitmap);
        await new Promise(requestAnimationFrame); // a browser that draws slowly leaves pictures out
      }
    } finally {
      busy = false;
    }
  };

  const showNothing = (colour) => {
    blank = true;
    waiting = null;
    shown.transferFromImageBitmap(null);
    layer.style.background = colour;
  };

  const place = () => {
    const box = bounds();
    if (box === null) return;
    if (layer.nextSibling !== target) target.before(layer);
    const style = `left:${box.left}px;top:${box.top}px;width:${box.width}px;height:${box.height}px`;
    if (root.getAttribute("style") !== style) {
      root.setAttribute("style", style);
      redraw();
    }
  };

  // Without a graphics processor viser's own drawing takes the time of the pictures: it gets fewer pixels there. This
  // runs before viser reads the address.
  const drawnBySoftware = () => {
    const context = document.createElement("canvas").getContext("webgl2");
    if (context === null) return true;
    const names = context.getExtension("WEBGL_debug_renderer_info");
    const name = context.getParameter(names === null ? context.RENDERER : names.UNMASKED_RENDERER_WEBGL);
    context.getExtension("WEBGL_lose_context")?.loseContext();
    return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
  };
  const software = drawnBySoftware();
  const address = new URL(location.href);
  if (!address.searchParams.has("fixedDpr") && software) {
    address.searchParams.set("fixedDpr", "0.5");
    history.replaceState(history.state, "", address);
  }

  // The program is told the size of what people see, not of what viser draws.
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (data, ...rest) {
    const message = data !== null && typeof data === "object" && data.type === "send" ? data.message : null;
    const box = message !== null && message?.type === "ViewerCameraMessage" ? bounds() : null;
    if (box !== null && box.width >= 1 && box.height >= 1) {
      const ratio = window.devicePixelRatio || 1;
      message.image_width = Math.round(box.width * ratio);
      message.image_height = Math.round(box.height * ratio);
    }
    return post.call(this, data, ...rest);
  };

  // Speaking with the program.

  const tell = (message) => {
    if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  };

  const hello = () => tell({ type: "hello", key, gpu: !software });

  const connect = () => {
    const url = new URL("overlay", location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.search = url.hash = "";
    socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (key !== null) hello();
    };
    socket.onmessage = ({ data }) => (typeof data === "string" ? receive(JSON.parse(data)) : show(data));
    socket.onclose = () => {
      setTimeout(connect, backoff);
      backoff = Math.min(backoff * 2, 4000);
    };
  };

  const receive = (message) => {
    backoff = 250; // the program knows this page
    if (message.type === "tool") {
      tool = { kind: message.kind, radius: message.radius };
      stroke = null;
      document.body.classList.toggle("anchorfield-drawing", tool.kind !== null && tool.kind !== "brush");
      document.body.classList.toggle("anchorfield-brushing", tool.kind === "brush");
      redraw();
    } else if (message.type === "status") {
      line.textContent = message.text;
    } else if (message.type === "split") {
      handle.hidden = message.position === null;
      if (message.position !== null && !dragging) handle.style.left = `${100 * message.position}%`;
    } else if (message.type === "nothing") {
      showNothing(message.colour);
    } else if (message.type === "error") {
      console.warn(`anchorfield: ${message.text}`);
    }
  };

  const gesture = (kind, points, modifiers, radius, done) => {
    const box = bounds();
    if (box === null) return;
    const share = (value, size) => Math.min(1, Math.max(0, value / size));
    tell({
      type: "gesture",
      kind,
      points: points.map(([x, y]) => [share(x, box.width), share(y, box.height)]),
      width: box.width,
      height: box.height,
      modifiers,
      radius,
      done,
    });
  };

  // Drawing. Listeners catch an event before viser sees it; what is not ours goes on to the camera.

  const at = (event) => {
    const box = bounds();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const held = (event) => ["shift", "alt", "ctrl"].filter((name) => event[`${name}Key`]);
  const ours = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  const begin = (event) => {
    if (tool.kind === null || tool.kind === "split" || spaceHeld || event.button !== 0) return;
    if (bounds() === null || event.target !== target) return;
    ours(event);
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    if (tool.kind === "point") {
      gesture("point", [at(event)], held(event), tool.radius, true);
      return;
    }
    stroke = { id: event.pointerId, points: [at(event)], modifiers: held(event) };
    redraw();
  };

  const extend = (event) => {
    if (tool.kind === "brush" && bounds() !== null) {
      cursor = event.target === target || stroke !== null ? at(event) : null;
      redraw();
    }
    if (stroke === null || event.pointerId !== stroke.id) return;
    ours(event);
    const point = at(event);
    if (tool.kind === "rectangle") {
      stroke.points = [stroke.points[0], point];
    } else {
      const [x, y] = stroke.points[stroke.points.length - 1];
      if (Math.hypot(point[0] - x, point[1] - y) < MIN_STEP) return;
      stroke.points.push(point);
      if (stroke.points.length > MAX_POINTS) stroke.points = stroke.points.filter((_, index) => index % 2 === 0);
    }
    redraw();
  };

  const finish = (event) => {
    if (stroke === null || event.pointerId !== stroke.id) return;
    ours(event);
    const { points, modifiers } = stroke;
    stroke = null;
    redraw();
    if (event.type === "pointercancel") return;
    if (tool.kind === "rectangle") {
      const [first, last] = [points[0], at(event)];
      const corners = [0, 1].map((axis) => [Math.min(first[axis], last[axis]), Math.max(first[axis], last[axis])]);
      const [[x0, x1], [y0, y1]] = corners;
      if (x1 - x0 >= 2 && y1 - y0 >= 2) gesture("rectangle", [[x0, y0], [x1, y1]], modifiers, 0, true); // prettier-ignore
    } else if (tool.kind === "brush") {
      gesture("brush", points, modifiers, tool.radius, true);
    } else if (points.length >= 3) {
      gesture("lasso", points, modifiers, 0, true);
    }
  };

  const typing = (event) =>
    event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]") !== null;

  const press = (event) => {
    if (event.code === "Space" && !typing(event)) spaceHeld = true;
    if (event.key === "Escape" && stroke !== null) {
      ours(event);
      stroke = null;
      redraw();
    }
    if (tool.kind === "brush" && !typing(event) && (event.key === "[" || event.key === "]")) {
      tool.radius = Math.min(500, Math.max(2, tool.radius * (event.key === "]" ? 1.2 : 1 / 1.2)));
      redraw();
    }
  };

  const slide = (event) => {
    const box = bounds();
    const x = Math.min(box.width, Math.max(0, event.clientX - box.left));
    handle.style.left = `${(100 * x) / box.width}%`;
    gesture("split", [[x, box.height / 2]], held(event), 0, event.type === "pointerup");
  };
  handle.addEventListener("pointerdown", (event) => {
    dragging = true;
    handle.setPointerCapture(event.pointerId);
    ours(event);
  });
  handle.addEventListener("pointermove", (event) => dragging && slide(event));
  handle.addEventListener("pointerup", (event) => {
    if (!dragging) return;
    dragging = false;
    slide(event);
  });
  handle.addEventListener("pointercancel", () => (dragging = false));

  const draw = () => {
    pending = false;
    const [width, height] = [root.clientWidth, root.clientHeight];
    const ratio = window.devicePixelRatio || 1;
    if (paper.width !== Math.round(width * ratio) || paper.height !== Math.round(height * ratio)) {
      paper.width = Math.round(width * ratio);
      paper.height = Math.round(height * ratio);
    }
    const context = paper.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = COLOUR;
    context.fillStyle = `${COLOUR}33`;
    context.lineWidth = 1.5;
    if (stroke !== null && tool.kind === "rectangle" && stroke.points.length === 2) {
      const [[x0, y0], [x1, y1]] = stroke.points;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    } else if (stroke !== null && tool.kind !== "rectangle") {
      context.beginPath();
      stroke.points.forEach(([x, y], index) => (index === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
      if (tool.kind === "lasso") {
        context.closePath();
        context.fill();
        context.stroke();
      } else {
        context.save();
        context.lineJoin = context.lineCap = "round";
        context.lineWidth = 2 * tool.radius;
        context.strokeStyle = `${COLOUR}66`;
        if (stroke.points.length === 1) context.lineTo(stroke.points[0][0] + 0.01, stroke.points[0][1]);
        context.stroke();
        context.restore();
      }
    }
    if (tool.kind === "brush" && cursor !== null) {
      context.beginPath();
      context.arc(cursor[0], cursor[1], tool.radius, 0, 2 * Math.PI);
      context.stroke();
    }
  };

  const start = () => {
    document.body.append(root);
    pending = false;
    window.addEventListener("pointerdown", begin, true);
    window.addEventListener("pointermove", extend, true);
    window.addEventListener("pointerup", finish, true);
    window.addEventListener("pointercancel", finish, true);
    window.addEventListener("keydown", press, true);
    window.addEventListener("keyup", (event) => event.code === "Space" && (spaceHeld = false), true);
    window.addEventListener("blur", () => (spaceHeld = false));
    window.addEventListener("resize", place);
    setInterval(place, 200); // panels that dock, and viser's own layout, move the canvas without an event
    place();
    connect();
  };

  // Run by the program through viser's connection of this page, so that it knows whose gestures these are.
  window.anchorfieldClient = (mine) => {
    key = mine;
    hello();
  };
  if (document.body === null) document.addEventListener("DOMContentLoaded", start);
  else start();
})();
