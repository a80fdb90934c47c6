/** The person over another background, on a canvas. */

import type { FrameMask } from './messages';

export type Background = { kind: 'colour'; colour: string } | { kind: 'blur' } | { kind: 'image'; image: ImageBitmap | null } | { kind: 'mask' };

const BLUR_SHRINK = 8;
const BLUR = 'blur(2px)';
/** Beyond the edges there is nothing, and the blur would let it in. */
const MARGIN = 6;

function surface(): CanvasRenderingContext2D {
  const found = document.createElement('canvas').getContext('2d');
  if (!found) throw new Error('this browser has no canvas');
  return found;
}

function sized(context: CanvasRenderingContext2D, width: number, height: number): CanvasRenderingContext2D {
  if (context.canvas.width !== width || context.canvas.height !== height) Object.assign(context.canvas, { width, height });
  return context;
}

export class Compositor {
  private readonly shown: CanvasRenderingContext2D;
  private readonly mask = surface();
  private readonly person = surface();
  private readonly small = surface();

  constructor(canvas: HTMLCanvasElement) {
    const shown = canvas.getContext('2d');
    if (!shown) throw new Error('this browser has no canvas');
    this.shown = shown;
  }

  /** Shows `frame` with what `found` says of it. */
  draw(frame: HTMLCanvasElement, found: FrameMask, background: Background, mirrored: boolean): void {
    const { width, height } = frame;
    const { alpha, crop } = found;
    const mask = sized(this.mask, found.width, found.height);
    const pixels = mask.createImageData(found.width, found.height);
    pixels.data.fill(255);
    for (let place = 0; place < alpha.length; place++) pixels.data[place * 4 + 3] = alpha[place];
    mask.putImageData(pixels, 0, 0);
    const person = sized(this.person, width, height);
    person.globalCompositeOperation = 'copy';
    person.drawImage(mask.canvas, crop.left, crop.top, crop.width, crop.height, 0, 0, width, height);
    if (background.kind !== 'mask') {
      person.globalCompositeOperation = 'source-in';
      person.drawImage(frame, 0, 0);
    }
    const shown = sized(this.shown, width, height);
    shown.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? width : 0, 0);
    this.behind(shown, frame, background);
    shown.drawImage(person.canvas, 0, 0);
  }

  private behind(shown: CanvasRenderingContext2D, frame: HTMLCanvasElement, background: Background): void {
    const { width, height } = frame;
    if (background.kind === 'blur') {
      // Blurred small and enlarged: the same to the eye, at a fraction of the cost.
      const small = sized(this.small, Math.ceil(width / BLUR_SHRINK), Math.ceil(height / BLUR_SHRINK));
      small.filter = BLUR;
      const { width: across, height: down } = small.canvas;
      small.drawImage(frame, -MARGIN, -MARGIN, across + 2 * MARGIN, down + 2 * MARGIN);
      shown.drawImage(small.canvas, 0, 0, width, height);
      return;
    }
    shown.fillStyle = background.kind === 'colour' ? background.colour : '#000000';
    shown.fillRect(0, 0, width, height);
    if (background.kind === 'image' && background.image) {
      // What is written on an image of the user's own stays readable where the camera is mirrored.
      const mirrored = shown.getTransform();
      shown.resetTransform();
      cover(shown, background.image, width, height);
      shown.setTransform(mirrored);
    }
  }
}

/** Fills the canvas and keeps the aspect ratio of the image. */
function cover(shown: CanvasRenderingContext2D, image: ImageBitmap, width: number, height: number): void {
  const ratio = Math.max(width / image.width, height / image.height);
  const [across, down] = [image.width * ratio, image.height * ratio];
  shown.drawImage(image, (width - across) / 2, (height - down) / 2, across, down);
}
