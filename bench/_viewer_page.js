// Watches viser's page from outside: when a camera goes to the server, and when its picture has been drawn.
// "sent": a camera message is handed to viser's socket worker. "drawn": a picture has been decoded and given to its layer,
// and the second animation frame after that begins: the first holds the picture, the second comes when it is composited.
(() => {
  const log = { moved: [], sent: [], drawn: [] };
  window.anchorfieldLog = log;
  for (const kind of ["pointermove", "wheel"])
    window.addEventListener(kind, (event) => log.moved.push(event.timeStamp), { capture: true, passive: true });
  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (data, ...rest) {
    if (data?.type === "send" && data.message?.type === "ViewerCameraMessage") log.sent.push(performance.now());
    return post.call(this, data, ...rest);
  };
  // The bench writes a number into the first row of blocks: 32 across the width, white is 1; the first 8 are MARK.
  const canvas = new OffscreenCanvas(32, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const number = (image) => {
    context.drawImage(image, 0, 0, image.width, Math.max(1, image.height / 32), 0, 0, 32, 1);
    const pixels = context.getImageData(0, 0, 32, 1).data;
    const bits = Array.from({ length: 32 }, (_, i) => (pixels[4 * i] > 127 ? 1 : 0));
    if (bits.slice(0, 8).join("") !== "10110010") return null; // a depth or another texture
    return bits.slice(8).reduce((sum, bit, i) => sum + bit * 2 ** i, 0);
  };
  const show = ImageBitmapRenderingContext.prototype.transferFromImageBitmap;
  ImageBitmapRenderingContext.prototype.transferFromImageBitmap = function (bitmap) {
    const entry = { number: number(bitmap), width: bitmap.width, decoded: performance.now() };
    show.call(this, bitmap);
    requestAnimationFrame(() => {
      entry.first = performance.now();
      requestAnimationFrame(() => {
        if (entry.number !== null) log.drawn.push({ ...entry, at: performance.now() });
      });
    });
  };
})();
