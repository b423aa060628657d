// Photos from the camera as files. The button is shown only where the browser offers a camera.

import { message } from "./i18n.js";

export function setUpCamera(onPhoto) {
  const byId = (id) => document.getElementById(id);
  const [dialog, video] = [byId("camera"), byId("video")];
  let count = 0;
  byId("open-camera").hidden = !navigator.mediaDevices?.getUserMedia;

  byId("open-camera").onclick = async () => {
    byId("camera-status").textContent = "";
    byId("take-photo").disabled = true;
    dialog.showModal();
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
      if (!dialog.open) stopCamera();
    } catch (error) {
      byId("camera-status").textContent = message("cameraError", { reason: error.message });
    }
  };
  video.onloadeddata = () => (byId("take-photo").disabled = false); // before its first frame it has no size
  byId("take-photo").onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      count += 1;
      const name = `camera ${count}.jpg`;
      byId("camera-status").textContent = message("photoTaken", { name });
      onPhoto(new File([blob], name, { type: "image/jpeg" }));
    }, "image/jpeg", 0.92);
  };
  byId("camera-close").onclick = () => dialog.close();
  dialog.addEventListener("close", stopCamera);

  function stopCamera() {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  }
}
