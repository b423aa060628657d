// The camera: a picture of it as a file. The button is there only where the browser lets a page ask.

import { say } from "./words.js";

export function watchCamera(onPicture) {
  const at = (id) => document.getElementById(id);
  const [dialog, video] = [at("camera"), at("video")];
  let count = 0;
  at("pick-camera").hidden = !navigator.mediaDevices?.getUserMedia;

  at("pick-camera").onclick = async () => {
    at("camera-told").textContent = "";
    at("shoot").disabled = true;
    dialog.showModal();
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      if (!dialog.open) end();
    } catch (error) {
      at("camera-told").textContent = say("noCamera", { reason: error.message });
    }
  };
  video.onloadeddata = () => (at("shoot").disabled = false); // before its first frame it has no size
  at("shoot").onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      count += 1;
      const name = `camera ${count}.jpg`;
      at("camera-told").textContent = say("shot", { x: name });
      onPicture(new File([blob], name, { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  };
  at("camera-close").onclick = () => dialog.close();
  dialog.addEventListener("close", end);

  function end() {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  }
}
