// Why there is no answer: what the server, or the worker, says in English -> the same in another language.

export const REASONS = {
  ru: [
    [/^the file is empty \(0 bytes\)$/, "файл пуст (0 байт)"],
    [/^(the content is not a picture in a known format|is no picture by its content)$/, "по содержимому это не снимок известного формата"],
    [/^(cut off: |cannot be decoded: image file is truncated).*/, "обрезан: файл кончается раньше, чем снимок"],
    [/^(\d+)x(\d+) is over the limit of (\S+) pixels$/, "$1×$2 — больше предела в $3 пикселей"],
    [/^over the limit of (\S+) pixels$/, "больше предела в $1 пикселей"],
    [/^(\S+) bytes are over the limit of (\S+)$/, "байт: $1, а предел — $2"],
    [/^too large for this machine's memory$/, "слишком велик для памяти этой машины"],
    [/^(\d+)x(\d+) is too large for this browser$/, "$1×$2 — слишком много для этого браузера"],
    [/^(\d+)x(\d+) is a picture without pixels$/, "$1×$2: снимок без пикселей"],
    [/^took longer than (\S+) seconds$/, "чтение заняло больше $1 с"],
    [/^the process that read it died \((.*)\)$/, "процесс, который его читал, погиб ($1)"],
    [/^HEIC is read with the 'heif' extra: .*/, "чтобы читать HEIC, нужно дополнение heif"],
    [/^this browser cannot read it: a damaged (.+), or a format that it does not know$/, "этот браузер его не читает: $1 повреждён, или такого формата браузер не знает"],
    [/^cannot be (decoded|read here): (.*)$/, "не читается: $2"],
    [/^\d+ pictures were not answered within (\S+) seconds\. .*/, "за $1 с ответ не готов; попробуйте ещё раз позже"],
    [/^The request could not be answered\. .*/, "на сервере что-то пошло не так; попробуйте ещё раз позже"],
    [/^(\S+) cannot be fetched: the web server answers (\d+)$/, "веб-сервер не отдаёт $1 (ответ $2)"],
    [/^(\S+) cannot be fetched \(.*/, "$1 не загружается: работает ли веб-сервер?"],
    [/^(\S+) on the web server has .*/, "файл $1 на веб-сервере повреждён: положите его туда ещё раз"],
  ],
};
