/** Reads the files that a user attaches. The runner checks sizes and formats; its errors are shown in the chat. */

import type { Picture } from "./conversation.ts";

export const ACCEPTED = "image/png,image/jpeg,image/webp,image/gif,image/bmp";

export function isPicture(file: File): boolean {
  return file.type.startsWith("image/");
}

/** Read a file as base64. Throws DOMException when the file cannot be read. */
export function readPicture(file: File): Promise<Picture> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => {
      const url = String(reader.result);
      resolve({ name: file.name, type: file.type, data: url.slice(url.indexOf(",") + 1) });
    };
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

export function pictureUrl(picture: Picture): string {
  return `data:${picture.type};base64,${picture.data}`;
}
