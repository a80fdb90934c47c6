/** The live view: frames of the camera, or the bundled picture, each with its mask. Nothing leaves the page. */

import { CameraFrames } from './camera-frames';
import { Compositor, type Background } from './composite';
import { element } from './dom';
import type { FrameMask } from './messages';
import { BASE } from './folder';
import { readBytes, type Plan, type Subject } from './plan';
import { Remote } from './remote';

const LONGEST_SIDE = 640;
const AVERAGED = 20;

interface Shown {
  subject: Subject;
  remote: Remote;
  fresh: boolean;
}

export class Live {
  private readonly compositor = new Compositor(element<HTMLCanvasElement>('picture'));
  private readonly video = document.createElement('video');
  private readonly frame: CanvasRenderingContext2D;
  private shown: Shown | null = null;
  private opening = 0;
  private running = false;
  private turns = 0;
  private busy: Promise<void> = Promise.resolve();
  private readonly moments: number[] = [];
  background: Background = { kind: 'colour', colour: '#2f6f4f' };
  mirrored = true;

  constructor(
    private readonly plan: Plan,
    private readonly say: (message: string) => void,
  ) {
    const frame = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    if (!frame) throw new Error('this browser has no canvas');
    this.frame = frame;
    this.video.playsInline = true;
    this.video.muted = true;
  }

  get usesCamera(): boolean {
    return this.running;
  }

  /** Opens another file; the one before goes on until it is there. */
  async select(subject: Subject): Promise<void> {
    const turn = ++this.opening;
    const remote = new Remote();
    this.say(`opening ${subject.label}`);
    try {
      const accelerator = this.plan.accelerators[0];
      const opened = await remote.ask('open', { base: BASE, subject, threads: 1, accelerator, startup: false });
      if (turn !== this.opening) return remote.close();
      const old = this.shown;
      await this.busy.catch(() => undefined);
      this.shown = { subject, remote, fresh: true };
      old?.remote.close();
      this.say(`${subject.label} in ${opened.runtime}`);
      if (!this.running) await this.still();
    } catch (error) {
      remote.close();
      if (turn === this.opening) this.say(`${subject.label} cannot be opened: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** Lets go of the file, so that nothing runs beside a benchmark. */
  release(): void {
    this.opening++;
    this.stopCamera();
    this.shown?.remote.close();
    this.shown = null;
  }

  /** Shows the bundled picture, or the last frame of the camera once more. */
  async redraw(): Promise<void> {
    if (!this.running && this.shown) await this.still();
  }

  private async still(): Promise<void> {
    const { file, width, height } = this.plan.picture;
    const pixels = new ImageData(new Uint8ClampedArray(await readBytes(BASE, file)), width, height);
    Object.assign(this.frame.canvas, { width, height });
    this.frame.putImageData(pixels, 0, 0);
    await (this.busy = this.once());
  }

  async startCamera(facing: string): Promise<void> {
    if (!navigator.mediaDevices) throw new Error('the camera needs a secure page: https, or this very machine');
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: false,
      video: { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } },
    });
    this.video.srcObject = stream;
    await this.video.play();
    this.running = true;
    this.moments.length = 0;
    if (this.shown) this.shown.fresh = true;
    void this.loop();
  }

  stopCamera(): void {
    this.running = false;
    const stream = this.video.srcObject as MediaStream | null;
    stream?.getTracks().forEach((track) => track.stop());
    this.video.srcObject = null;
  }

  private async loop(): Promise<void> {
    const frames = new CameraFrames(this.video);
    const turn = ++this.turns;
    // A camera that was stopped and started meanwhile has a loop of its own.
    while (this.running && turn === this.turns) {
      await frames.next();
      if (!this.running || turn !== this.turns || !this.shown) continue;
      const { videoWidth, videoHeight } = this.video;
      const ratio = Math.min(1, LONGEST_SIDE / Math.max(videoWidth, videoHeight));
      const [width, height] = [Math.round(videoWidth * ratio), Math.round(videoHeight * ratio)];
      if (this.frame.canvas.width !== width || this.frame.canvas.height !== height) Object.assign(this.frame.canvas, { width, height });
      this.frame.drawImage(this.video, 0, 0, width, height);
      const { shown } = this;
      try {
        await (this.busy = this.once());
      } catch (error) {
        if (!this.running) return;
        // The file was switched while it ran on this frame.
        if (this.shown !== shown) continue;
        this.stopCamera();
        this.say(`stopped: ${error instanceof Error ? error.message : error}`);
      }
    }
  }

  private async once(): Promise<void> {
    const { shown } = this;
    if (!shown) return;
    const { width, height } = this.frame.canvas;
    const pixels = this.frame.getImageData(0, 0, width, height).data.buffer;
    const found = await shown.remote.ask('frame', { pixels, width, height, restart: shown.fresh }, [pixels]);
    shown.fresh = false;
    const before = performance.now();
    this.compositor.draw(this.frame.canvas, found, this.background, this.mirrored);
    this.show(found, performance.now() - before);
  }

  private show(found: FrameMask, composite_ms: number): void {
    document.documentElement.dataset.firstMaskMs ??= performance.now().toFixed(0);
    const now = performance.now();
    this.moments.push(now);
    if (this.moments.length > AVERAGED) this.moments.shift();
    const elapsed = now - this.moments[0];
    element('fps').textContent = this.running && elapsed ? ((1000 * (this.moments.length - 1)) / elapsed).toFixed(1) : '-';
    const times = { preprocess: found.preprocess_ms, inference: found.inference_ms, mask: found.mask_ms, composite: composite_ms };
    for (const [name, value] of Object.entries(times)) element(`time-${name}`).textContent = `${value.toFixed(1)} ms`;
  }
}
