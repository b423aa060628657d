// Translations of the error messages that the server and the worker send in English.

export const ERROR_MESSAGES = {
  ru: [
    [/^the file is empty \(0 bytes\)$/, "файл пуст (0 байт)"],
    [/^not an image in a known format$/, "содержимое не является изображением известного формата"],
    [/^(truncated: |cannot be decoded: image file is truncated).*/, "файл обрезан: данные изображения неполные"],
    [/^damaged: .*/, "файл повреждён: данные изображения испорчены"],
    [/^(\d+)x(\d+) is over the limit of (\S+) pixels$/, "$1×$2: превышен предел в $3 пикселей"],
    [/^over the limit of (\S+) pixels$/, "превышен предел в $1 пикселей"],
    [/^(\S+) bytes are over the limit of (\S+)$/, "размер $1 байт превышает предел в $2"],
    [/^too large for this machine's memory$/, "изображение не помещается в память этой машины"],
    [/^(\d+)x(\d+) is too large for this browser$/, "$1×$2: слишком много для этого браузера"],
    [/^the image has no pixels \((\d+)x(\d+)\)$/, "в изображении нет пикселей ($1×$2)"],
    [/^took longer than (\S+) seconds$/, "обработка заняла больше $1 с"],
    [/^the decoder crashed \((.*)\)$/, "сбой декодера ($1)"],
    [/^HEIC needs the 'heif' extra: .*/, "для чтения HEIC установите дополнение heif"],
    [/^this browser cannot read it: a damaged (.+), or a format that it does not support$/, "браузер не может прочитать файл: $1 повреждён или этот формат не поддерживается"],
    [/^cannot be (decoded|read here): (.*)$/, "не удалось прочитать: $2"],
    [/^\d+ images were not processed within (\S+) seconds\. .*/, "изображения не обработаны за $1 с; повторите позже"],
    [/^The request could not be processed\. .*/, "внутренняя ошибка сервера; повторите позже"],
    [/^(\S+) cannot be fetched: the web server answers (\d+)$/, "веб-сервер не отдаёт $1 (код $2)"],
    [/^(\S+) cannot be fetched \(.*/, "не удалось загрузить $1: работает ли веб-сервер?"],
    [/^(\S+) on the web server has .*/, "файл $1 на веб-сервере повреждён: скопируйте его туда ещё раз"],
  ],
};
